"""Stage compress: transforms, solvers and packing of one decoder layer."""
