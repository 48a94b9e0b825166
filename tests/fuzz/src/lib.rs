//! What several fuzz targets share, and the program that writes seeds.

pub mod sparse;
