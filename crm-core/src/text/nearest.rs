//! The nearest known name: edit distance with transpositions.

/// Edits (insert, delete, replace, swap neighbours) from `a` to `b`, ignoring case.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (above[j] + usize::from(x != y)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

/// The known name nearest to `word`, when it is near enough to be what was meant.
pub fn nearest<'a, I>(word: &str, known: I) -> Option<&'a str>
where
    I: IntoIterator<Item = &'a str>,
{
    let limit = match word.chars().count() {
        0..=2 => 1,
        3..=5 => 2,
        _ => 3,
    };
    known
        .into_iter()
        .map(|name| (distance(word, name), name))
        .filter(|(far, name)| *far <= limit && *far < name.chars().count())
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_swap_is_one_edit_and_case_is_free() {
        assert_eq!(nearest("Filesystme", ["Filesystem", "nfsserver"]), Some("Filesystem"));
        assert_eq!(nearest("filesystem", ["Filesystem"]), Some("Filesystem"));
    }

    #[test]
    fn far_names_are_not_offered() {
        assert_eq!(nearest("apache", ["nfsserver", "Dummy"]), None);
        assert_eq!(nearest("a", ["b"]), None);
    }
}
