//! Errors in terms of the script: what happened, in which file and line, called
//! from where; for a slip of the fingers, what was probably meant.
//!
//! # Not here
//! What happens next (attempts, backoff): `engine/instance.rs`.

use daybook_model::Event;
use mlua::Error;

use crate::bindings::args;
use crate::limits::FULL;

/// What somebody outside sent does not fit: a route answers 400, not 500.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Invalid {
    pub reason: String,
}

impl Invalid {
    /// If the error is one, wherever the script's calls led it.
    pub fn of(error: &Error) -> Option<&Self> {
        match error {
            Error::CallbackError { cause, .. } | Error::WithContext { cause, .. } => Self::of(cause),
            other => other.downcast_ref::<Self>(),
        }
    }
}

/// Longer traces help nobody: a recursion has thousands.
const FRAMES_MAX: usize = 12;

/// `points.lua:12: what happened`, then one line per calling function of the script.
pub(crate) fn describe(error: &Error) -> String {
    let mut told = Told::default();
    told.take(error);
    let message = told.message.trim_end();
    let place = told.frames.first().map(|frame| frame.split_whitespace().next().unwrap_or_default());
    let mut text = match place {
        Some(place) if !starts_with_place(message) => format!("{place}: {message}"),
        _ => message.to_owned(),
    };
    // The first frame is the place itself; it says something new only with a name.
    let frames: Vec<&String> = told.frames.iter().collect();
    if frames.len() > 1 || frames.first().is_some_and(|frame| frame.contains(' ')) {
        for frame in frames.iter().take(FRAMES_MAX) {
            text += &format!("\n  at {frame}");
        }
        if frames.len() > FRAMES_MAX {
            text += &format!("\n  and {} more", frames.len() - FRAMES_MAX);
        }
    }
    text
}

/// The first line of what [`describe`] says.
pub(crate) fn headline(description: &str) -> &str {
    description.lines().next().unwrap_or_default()
}

/// The event that led to an error, as a person would look for it.
pub(crate) fn caused_by(event: &Event) -> String {
    let key = event.subject.as_deref().map(|subject| format!("key {subject}, ")).unwrap_or_default();
    format!("{} ({key}position {}, id {})", event.kind, event.position, event.id)
}

/// Reasons travel with every record of the group: a page of text is enough.
pub(crate) fn shortened(mut text: String) -> String {
    const BYTES_MAX: usize = 2_000;
    if text.len() > BYTES_MAX {
        let end = (0..=BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

#[derive(Default)]
struct Told {
    message: String,
    frames: Vec<String>,
}

impl Told {
    fn take(&mut self, error: &Error) {
        match error {
            Error::CallbackError { traceback, cause } => {
                self.take(cause);
                // The innermost trace is the longest.
                if self.frames.is_empty() {
                    self.frames = frames(traceback);
                }
            }
            Error::WithContext { cause, .. } => self.take(cause),
            Error::BadArgument { name: Some(name), to, .. } if name == "self" => {
                let method = to.as_deref().and_then(|to| to.rsplit(['.', ':']).next()).unwrap_or("it");
                self.message =
                    format!("`{method}` is called with a colon, like svc:{method}(…), not with a dot");
            }
            Error::BadArgument { to, pos, cause, .. } => {
                let to = to.as_deref().unwrap_or("the function");
                self.take(cause);
                self.message = format!("{to}: argument {pos}: {}", self.message);
            }
            Error::SyntaxError { message, .. } => self.split(message),
            Error::RuntimeError(message) => self.split(message),
            Error::MemoryError(_) => {
                self.message = FULL.into();
            }
            other => self.split(&other.to_string()),
        }
    }

    fn split(&mut self, text: &str) {
        let (message, trace) = match text.split_once("\nstack traceback:\n") {
            Some((message, trace)) => (message, trace),
            None => (text, ""),
        };
        let message = message.strip_prefix("runtime error: ").unwrap_or(message);
        self.message = if message.contains("not enough memory") { FULL.into() } else { message.to_owned() };
        self.frames = frames(trace);
    }
}

/// `points.lua:12 in earn` of each frame that is the script's own.
fn frames(traceback: &str) -> Vec<String> {
    traceback.lines().filter_map(|line| frame(line.trim())).collect()
}

fn frame(line: &str) -> Option<String> {
    let (file, number, rest) = place(line)?;
    // Functions without a name are called after the line they begin in.
    let name = rest.trim_start_matches("in ").trim_start_matches("function ");
    let name = name.trim_matches(['\'', '`', ' ', ':']);
    let is_name = !name.is_empty() && !name.starts_with('<');
    Some(if is_name { format!("{file}:{number} in {name}") } else { format!("{file}:{number}") })
}

fn starts_with_place(message: &str) -> bool {
    place(headline(message)).is_some()
}

/// Adds to an error that names file and line what the line says, with a caret
/// under what is meant, and what a misspelt global probably should be.
pub(crate) fn with_source(description: String, source: Option<&str>, globals: &[&str]) -> String {
    let (first, rest) = description.split_once('\n').map_or((description.as_str(), ""), |(a, b)| (a, b));
    let Some((_, number, message)) = place(first) else { return description };
    let line = source.and_then(|text| text.lines().nth(number.checked_sub(1)?));
    let Some(line) = line else { return description };
    let mut text = first.to_owned();
    let shown = line.trim_end();
    let mut caret = column(line, message).unwrap_or(shown.len() - shown.trim_start().len());
    if message.contains("attempt to call a nil value")
        && let Some((wrong, right)) = misspelt(line, globals)
    {
        text += &format!("; `{wrong}` is nothing here, did you mean `{right}`?");
        caret = line.find(wrong).unwrap_or(caret);
    } else if let Some(nil) = nil_in(line, message, globals) {
        text += &match absent(nil) {
            Some(instead) => format!("; there is no `{nil}` here: {instead}"),
            None => format!("; `{nil}` is nil"),
        };
        caret = line.find(nil).unwrap_or(caret);
    }
    let before: usize = line[..caret].chars().count();
    let gutter = number.to_string().len();
    text += &format!("\n  {number} | {shown}\n  {:gutter$} | {:before$}^", "", "");
    if !rest.is_empty() {
        text += "\n";
        text += rest;
    }
    text
}

/// What was nil, as the line writes it; Luau says only that something was. `None` if
/// the line has several that it could have been.
fn nil_in<'a>(line: &'a str, message: &str, globals: &[&str]) -> Option<&'a str> {
    let part_of_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | ':');
    let before = |end: usize| {
        let head = line[..end].trim_end_matches(['.', ':']);
        let begin = head
            .rfind(|c| !part_of_name(c))
            .map_or(0, |at| at + head[at..].chars().next().map_or(1, char::len_utf8));
        let name = &head[begin..];
        name.starts_with(|c: char| c.is_alphabetic() || c == '_').then_some(name)
    };
    let mut found: Vec<&str> = if let Some(rest) = message.strip_prefix("attempt to index nil with '") {
        let member = rest.split('\'').next()?;
        let places = line.match_indices(member).filter(|(at, _)| {
            let after = line[at + member.len()..].chars().next();
            line[..*at].ends_with(['.', ':']) && !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
        });
        places.map(|(at, _)| before(at)).collect::<Option<_>>()?
    } else if message.starts_with("attempt to call a nil value") {
        let calls =
            line.match_indices(['(', '{', '"']).filter_map(|(at, _)| before(line[..at].trim_end().len()));
        let known = |name: &&str| {
            let root = name.split(['.', ':']).next().unwrap_or_default();
            globals.contains(&root) || LUAU.contains(&root) || name.contains(':')
        };
        calls.filter(|name| !known(name)).collect()
    } else {
        return None;
    };
    found.dedup();
    match found[..] {
        [only] => Some(only),
        _ => None,
    }
}

/// What Lua has elsewhere and not here, and what to take instead.
fn absent(name: &str) -> Option<&'static str> {
    Some(match name {
        "os" => "the time is `ctx.now`",
        "io" | "debug" | "package" => {
            "a service reaches nothing but its events, its tables and other services"
        }
        "socket" | "http" => "another service is asked by `svc:http`",
        _ => return None,
    })
}

/// Luau's own names, and words before a bracket that call nothing.
const LUAU: [&str; 38] = [
    "and",
    "assert",
    "bit32",
    "buffer",
    "coroutine",
    "else",
    "elseif",
    "error",
    "for",
    "function",
    "getmetatable",
    "if",
    "in",
    "ipairs",
    "local",
    "math",
    "next",
    "not",
    "or",
    "pairs",
    "rawequal",
    "rawget",
    "rawlen",
    "rawset",
    "return",
    "select",
    "setmetatable",
    "string",
    "table",
    "then",
    "tonumber",
    "type",
    "typeof",
    "unpack",
    "until",
    "utf8",
    "while",
    "xpcall",
];

/// The file that a description names first.
pub(crate) fn file(description: &str) -> Option<&str> {
    place(headline(description)).map(|(file, _, _)| file)
}

/// File, line and message of `points.lua:12: message`.
fn place(line: &str) -> Option<(&str, usize, &str)> {
    let (file, rest) = line.split_once(".lua:")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let number = rest[..digits].parse().ok()?;
    let file = &line[..file.len() + 4];
    (!file.contains(char::is_whitespace))
        .then(|| (file, number, rest[digits..].trim_start_matches([':', ' '])))
}

/// Where in the line the message points: at the word that it quotes.
fn column(line: &str, message: &str) -> Option<usize> {
    // Of a syntax error, what stands there instead of what is missing.
    let message = message.rsplit_once(", got ").map_or(message, |(_, got)| got);
    for quote in ['\'', '`'] {
        let mut quoted = message.split(quote).skip(1).step_by(2);
        if let Some(at) = quoted.find_map(|word| (!word.is_empty()).then(|| whole(line, word)).flatten()) {
            return Some(at);
        }
    }
    None
}

/// The last place of a word in the line that is no part of a longer one.
fn whole(line: &str, word: &str) -> Option<usize> {
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut places = line.rmatch_indices(word).map(|(at, _)| at);
    let longer = |at: usize, edge: char, beside: Option<char>| {
        at < line.len() && (edge.is_alphanumeric() || edge == '_') && inside(beside)
    };
    let (first, last) = (word.chars().next()?, word.chars().next_back()?);
    places.find(|at| {
        let (before, after) = (line[..*at].chars().next_back(), line[at + word.len()..].chars().next());
        !longer(*at, first, before) && !longer(*at, last, after)
    })
}

/// A called name of the line that is close to a known global without being one.
fn misspelt<'a>(line: &'a str, globals: &[&'a str]) -> Option<(&'a str, &'a str)> {
    let words = line.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| word.len() > 1);
    words
        .filter(|word| {
            let at = word.as_ptr() as usize - line.as_ptr() as usize;
            let called = line[at + word.len()..].trim_start().starts_with(['(', '{', '"', '\'']);
            let is_member = line[..at].ends_with(['.', ':']);
            called && !is_member && !globals.contains(word)
        })
        .find_map(|word| Some((word, args::nearest(word, globals)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syntax_error_shows_its_line_with_a_caret() {
        let text = "local svc = service('x')\nsvc:on('X' function() end)\n";
        let told = with_source(
            "x.lua:2: Expected ')' (to close '(' at column 7), got 'function'".into(),
            Some(text),
            &[],
        );
        assert!(told.contains("2 | svc:on('X' function() end)\n"), "{told}");
    }

    #[test]
    fn a_missing_end_points_at_what_came_instead_and_not_into_a_word() {
        let line = "card:decide(\"spend\", {}, function(state) end)";
        let told = with_source(
            "x.lua:1: Expected 'end' (to close 'function' at line 9), got 'card'".into(),
            Some(line),
            &[],
        );
        assert!(told.ends_with("\n    | ^"), "{told}");
        assert_eq!(whole("spend(end)", "end"), Some(6));
        assert_eq!(whole("spend", "end"), None);
    }

    #[test]
    fn a_misspelt_global_is_told_what_it_should_be() {
        let text = "return evnt(\"X\", {})";
        let told =
            with_source("x.lua:1: attempt to call a nil value".into(), Some(text), &["event", "reject"]);
        assert!(told.contains("did you mean `event`?"), "{told}");
    }

    #[test]
    fn what_was_nil_is_named_where_the_line_has_only_one_that_it_can_have_been() {
        let call = "attempt to call a nil value";
        for (line, message, added) in [
            (
                "return json(state.best.amount)",
                "attempt to index nil with 'amount'",
                "; `state.best` is nil\n",
            ),
            (
                "return os.time()",
                "attempt to index nil with 'time'",
                "; there is no `os` here: the time is `ctx.now`\n",
            ),
            ("return a.x + b.x", "attempt to index nil with 'x'", "\n"),
            ("return f(1).x", "attempt to index nil with 'x'", "\n"),
            ("return json(total(rows))", call, "; `total` is nil\n"),
            ("return prices.of(tonumber(x))", call, "; `prices.of` is nil\n"),
            ("return one(two())", call, "\n"),
        ] {
            let told = with_source(format!("x.lua:1: {message}"), Some(line), &["json", "event"]);
            assert!(told.starts_with(&format!("x.lua:1: {message}{added}")), "{told}");
        }
    }

    #[test]
    fn what_a_script_calls_is_told_frame_by_frame() {
        let error = Error::RuntimeError(
            "x.lua:3: boom\nstack traceback:\n[C] in function error\nx.lua:3 in function inner\nx.lua:9"
                .into(),
        );
        assert_eq!(describe(&error), "x.lua:3: boom\n  at x.lua:3 in inner\n  at x.lua:9");
    }
}
