//! Random bytes from the operating system.

/// Fills a buffer.
///
/// # Panics
/// If the operating system has none to give: nothing safe can be done without.
pub fn fill(buffer: &mut [u8]) {
    getrandom::fill(buffer).expect("the operating system gives random bytes");
}

/// `N` random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut buffer = [0; N];
    fill(&mut buffer);
    buffer
}
