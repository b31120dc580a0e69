"""Any file → uint8 RGB, or a plain refusal: decoding, FITS and TIFF, borders."""
