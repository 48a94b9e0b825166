//! What several fuzz targets, and the seeds of their corpus, share.

pub mod sparse;
