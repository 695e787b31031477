//! Lines to statements' tokens: continuation, comments, POSIX quoting; every token knows its place.

use super::diagnostic::{Diagnostic, Place};
use std::collections::VecDeque;
use std::sync::Arc;

/// A word of a statement.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    /// Text without quotes and escapes.
    pub text: String,
    /// Where it stands.
    pub place: Place,
    /// Some part of it was quoted or escaped.
    pub quoted: bool,
}

impl Token {
    /// The place of a part of this token, by character offset; the whole token when it was quoted before that.
    pub(crate) fn part(&self, offset: usize, length: usize) -> Place {
        let mut place = self.place.clone();
        if !self.quoted && offset < place.length {
            place.column += offset;
            place.length = length.min(place.length - offset).max(1);
        }
        place
    }

    /// True for this keyword in any case.
    pub(crate) fn is(&self, keyword: &str) -> bool {
        self.text.eq_ignore_ascii_case(keyword)
    }
}

#[derive(Debug, Clone)]
struct Piece {
    line: usize,
    /// Characters before the first one kept.
    indent: usize,
    text: String,
    source: Arc<str>,
}

/// A logical line: one statement, perhaps over several lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logical {
    pieces: Vec<Piece>,
}

/// Cuts a text into logical lines.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    file: Arc<str>,
    line: usize,
    waiting: VecDeque<String>,
    open: Logical,
}

impl Lines {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: Arc::from(file), line: 0, waiting: VecDeque::new(), open: Logical::default() }
    }

    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// Adds whole lines; a missing last line feed is implied.
    pub(crate) fn push(&mut self, text: &str) {
        self.waiting.extend(text.lines().map(str::to_owned));
    }

    /// True while a statement that ends in a backslash waits for its next line.
    pub(crate) fn incomplete(&self) -> bool {
        self.waiting.is_empty() && !self.open.pieces.is_empty()
    }

    /// The next complete logical line; comments and blank lines are skipped.
    pub(crate) fn next(&mut self) -> Option<Logical> {
        while let Some(source) = self.waiting.pop_front() {
            self.line += 1;
            let trimmed = source.trim();
            if self.open.pieces.is_empty() && (trimmed.is_empty() || trimmed.starts_with('#')) {
                continue;
            }
            let indent = source.chars().take_while(|c| c.is_whitespace()).count();
            let (text, more) = match trimmed.strip_suffix('\\') {
                Some(text) => (text, true),
                None => (trimmed, false),
            };
            self.open.pieces.push(Piece {
                line: self.line,
                indent,
                text: text.to_owned(),
                source: Arc::from(source.as_str()),
            });
            if !more && let Some(line) = self.finish() {
                return Some(line);
            }
        }
        None
    }

    /// At the end of the text: what still waited for its next line.
    pub(crate) fn finish(&mut self) -> Option<Logical> {
        let line = std::mem::take(&mut self.open);
        let blank = line.pieces.iter().all(|piece| piece.text.trim().is_empty());
        (!blank).then_some(line)
    }

    /// Splits a logical line into tokens.
    pub(crate) fn tokens(&self, logical: &Logical) -> Result<Vec<Token>, Box<Diagnostic>> {
        let mut scan = Scan { file: &self.file, chars: Vec::new(), at: 0, logical };
        for (index, piece) in logical.pieces.iter().enumerate() {
            for (offset, c) in piece.text.chars().enumerate() {
                scan.chars.push((c, index, piece.indent + offset + 1));
            }
        }
        let mut tokens = Vec::new();
        while let Some(token) = scan.token()? {
            tokens.push(token);
        }
        Ok(tokens)
    }
}

struct Scan<'a> {
    file: &'a Arc<str>,
    chars: Vec<(char, usize, usize)>,
    at: usize,
    logical: &'a Logical,
}

impl Scan<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).map(|(c, _, _)| *c)
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn place(&self, from: usize, to: usize) -> Place {
        let (_, piece, column) = self.chars[from];
        let length = self.chars[from..to].iter().take_while(|(_, p, _)| *p == piece).count();
        let piece = &self.logical.pieces[piece];
        Place {
            file: Arc::clone(self.file),
            line: piece.line,
            column,
            length: length.max(1),
            source: Arc::clone(&piece.source),
        }
    }

    fn token(&mut self) -> Result<Option<Token>, Box<Diagnostic>> {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
        let start = self.at;
        let mut text = String::new();
        let mut quoted = false;
        while let Some(c) = self.peek() {
            if c.is_whitespace() {
                break;
            }
            self.at += 1;
            match c {
                '"' | '\'' => {
                    quoted = true;
                    self.quoted(c, &mut text)?;
                }
                '$' if self.peek() == Some('\'') && (text.is_empty() || text.ends_with('=')) => {
                    quoted = true;
                    self.at += 1;
                    self.escaped(&mut text)?;
                }
                '\\' => {
                    quoted = true;
                    text.push(self.take().unwrap_or('\\'));
                }
                _ => text.push(c),
            }
        }
        if self.at == start {
            return Ok(None);
        }
        Ok(Some(Token { text, place: self.place(start, self.at), quoted }))
    }

    fn unterminated(&self, open: usize, quote: char) -> Box<Diagnostic> {
        Diagnostic::error(
            "CRM0001",
            &self.place(open, self.chars.len()),
            format!("unterminated quote: no closing {quote} on this line"),
        )
        .helping("close the quote, or write the character as `\\\"` inside double quotes")
    }

    fn quoted(&mut self, quote: char, text: &mut String) -> Result<(), Box<Diagnostic>> {
        let open = self.at - 1;
        while let Some(c) = self.take() {
            if c == quote {
                return Ok(());
            }
            match (c, self.peek()) {
                ('\\', Some(next)) if quote == '"' && (next == '"' || next == '\\') => {
                    self.at += 1;
                    text.push(next);
                }
                _ => text.push(c),
            }
        }
        Err(self.unterminated(open, quote))
    }

    /// `$'...'`: line feeds, tabs and the like, which have no other spelling on one line.
    fn escaped(&mut self, text: &mut String) -> Result<(), Box<Diagnostic>> {
        let open = self.at - 1;
        while let Some(c) = self.take() {
            match c {
                '\'' => return Ok(()),
                '\\' => match self.take() {
                    Some('n') => text.push('\n'),
                    Some('r') => text.push('\r'),
                    Some('t') => text.push('\t'),
                    Some('u') => text.push(self.code_point(open)?),
                    Some(other) => text.push(other),
                    None => break,
                },
                _ => text.push(c),
            }
        }
        Err(self.unterminated(open, '\''))
    }

    /// `\u{1B}`, after the `u`.
    fn code_point(&mut self, open: usize) -> Result<char, Box<Diagnostic>> {
        let digits: String = self.chars[self.at..]
            .iter()
            .map(|(c, _, _)| *c)
            .take_while(|c| *c != '}' && *c != '\'')
            .collect();
        let read = digits
            .strip_prefix('{')
            .and_then(|hex| u32::from_str_radix(hex, 16).ok())
            .and_then(char::from_u32);
        match read {
            Some(c) => {
                self.at += digits.chars().count() + 1;
                Ok(c)
            }
            None => Err(Diagnostic::error(
                "CRM0001",
                &self.place(open, self.at),
                "not a character: `\\u` wants a hexadecimal number in braces",
            )
            .expecting("`\\u{1B}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    fn words(text: &str) -> Vec<String> {
        let mut lines = Lines::new("t");
        lines.push(text);
        let line = lines.next().or_else(|| lines.finish()).unwrap();
        lines.tokens(&line).unwrap().into_iter().map(|t| t.text).collect()
    }

    #[test]
    fn quotes_and_escapes_are_posix() {
        assert_eq!(
            words(r#"a="b c" d='e "f' g=\ h i="x\"y" j="k\l" m="n\\""#),
            ["a=b c", "d=e \"f", "g= h", "i=x\"y", "j=k\\l", "m=n\\"]
        );
        assert_eq!(words(r"a=$'x\ny\'\\'"), ["a=x\ny'\\"]);
    }

    #[test]
    fn a_token_knows_its_line_and_column_after_a_continuation() {
        let mut lines = Lines::new("t");
        lines.push("# note\nprimitive a Dummy \\\n\tparams x=1\n");
        let line = lines.next().unwrap();
        let tokens = lines.tokens(&line).unwrap();
        assert_eq!((tokens[4].place.line, tokens[4].place.column), (3, 9));
        assert_eq!(tokens[4].text, "x=1");
    }

    #[test]
    fn an_open_quote_is_placed_where_it_opens() {
        let mut lines = Lines::new("t");
        lines.push("property a=\"b");
        let line = lines.next().unwrap();
        let wrong = lines.tokens(&line).unwrap_err();
        assert_eq!((wrong.code.as_str(), wrong.line, wrong.column), ("CRM0001", 1, 12));
    }

    #[test]
    fn a_trailing_backslash_waits_for_the_next_line() {
        let mut lines = Lines::new("t");
        lines.push("property \\");
        assert!(lines.next().is_none());
        assert!(lines.incomplete());
        lines.push("a=b");
        assert!(lines.next().is_some());
        assert!(!lines.incomplete());
    }
}
