"""From a corpus to minibatches: order, reading ahead, export and streaming (ConVIRT, sections 2.1 to 2.3)."""
