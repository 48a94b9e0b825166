//! What the fuzz targets check of each input. `tests/tests/corpus.rs` checks the committed inputs with the same modules.

pub mod manifest;
pub mod range;
pub mod reference;
pub mod sif;
pub mod sparse;
#[cfg(feature = "wide")]
pub mod template;
#[cfg(feature = "wide")]
pub mod token;
