//! Patterns of names: `*` stands for any number of characters.

/// Whether `text` is what `pattern` stands for. Its time is at most the product of both lengths.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut seen) = (0, 0);
    // Where the last `*` is, and up to where it reaches.
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(byte) if text.get(seen) == Some(byte) => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((back, reached)) = star else { return false };
                star = Some((back, reached + 1));
                at = back + 1;
                seen = reached + 1;
            }
        }
    }
    pattern.iter().skip(at).all(|byte| *byte == b'*')
}
