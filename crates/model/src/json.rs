//! Looking at JSON without taking it apart.

/// Whether arrays and objects nest deeper than `limit` anywhere in `json`,
/// which must be well-formed.
pub(crate) fn deeper_than(json: &str, limit: usize) -> bool {
    // n levels need n opening brackets: short data cannot be deep.
    if json.len() <= limit {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in json.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::deeper_than;

    #[test]
    fn brackets_inside_strings_do_not_nest() {
        assert!(!deeper_than(r#"["[[[[\"[[[[", 1]"#, 3));
        assert!(deeper_than("[[[[1]]]]", 3));
        assert!(!deeper_than("[[[[1]]]]", 4));
    }
}
