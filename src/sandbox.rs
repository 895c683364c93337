//! TBD
pub fn create(_: &std::path::Path, _: u32) -> std::io::Result<String> { todo!() }
