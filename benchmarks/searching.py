"""How long exact search takes among synthetic vectors, alone and under a filter of one per cent.

python benchmarks/searching.py [--images 1000000] [--dim 512] [--queries 100]
"""

import argparse
import time
from statistics import median, quantiles

import faiss
import numpy as np


def main() -> None:
    """Fill the engine that `convirt search` uses, and ask it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    flat = faiss.IndexScalarQuantizer(asked.dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    whole = faiss.IndexFlatIP(asked.dim)
    for start in range(0, asked.images, 50_000):
        vectors = rng.normal(size=(min(50_000, asked.images - start), asked.dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        flat.add(vectors)
        if start < 200_000:
            whole.add(vectors)
    queries = rng.normal(size=(asked.queries, asked.dim)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    chosen = rng.random(asked.images) < 0.01
    selector = faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
    for name, given in (("exact", {}), ("filter of 1 %", {"params": faiss.SearchParameters(sel=selector)})):
        times = []
        for query in queries:
            began = time.perf_counter()
            _, rows = flat.search(query[None], 10, **given)
            times.append(1000 * (time.perf_counter() - began))
            assert not given or chosen[rows[0]].all()
        print(f"{name}: p50 {median(times):.1f} ms, p95 {quantiles(times, n=20)[-1]:.1f} ms")
    print(f"{asked.images * asked.dim * 2 / 2**30:.2f} GiB of vectors, {faiss.omp_get_max_threads()} threads")
    part = faiss.IndexScalarQuantizer(asked.dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    part.add(whole.reconstruct_n(0, whole.ntotal))
    _, half = part.search(queries, 10)
    _, full = whole.search(queries, 10)
    same = np.mean([set(a) == set(b) for a, b in zip(half, full, strict=True)])
    print(f"the same ten as in float32, of {whole.ntotal:,}: {100 * same:.1f} % of the queries")


if __name__ == "__main__":
    main()
