"""From a file to a prepared image: decoders, DICOM's display pipeline, and limits on what a file may do."""
