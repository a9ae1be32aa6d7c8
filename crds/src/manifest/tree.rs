//! YAML (and with it JSON) into values that remember their lines.
//!
//! The parser's events become a tree; aliases are copied within a budget, duplicate keys are refused, and plain scalars
//! are resolved the way Kubernetes' own YAML library resolves them, so that a file means here what it means to kubectl.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Number, Value};

/// Values that aliases may add to one file: enough for any hand-written file, too few for an alias bomb.
const MAX_ALIASED: usize = 100_000;
/// How deep values may nest.
const MAX_DEPTH: usize = 100;

/// A value and the line (from 1) it, or its key, is written on.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Scalar(Value),
    List(Vec<Rc<Node>>),
    Map(Vec<(String, Rc<Node>)>),
}

/// A text that can't be read, or a part of it that can't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TextProblem {
    pub(super) line: usize,
    pub(super) message: String,
}

/// One document of a text. With problems of its own it is not to be used, but more of it can be reported.
pub(super) struct Document {
    pub(super) root: Rc<Node>,
    pub(super) problems: Vec<TextProblem>,
}

/// Every document of a text up to the first syntax error, and that error.
pub(super) fn parse(text: &str) -> (Vec<Document>, Option<TextProblem>) {
    let mut builder = Builder::default();
    let text = join_surrogates(text);
    for event in Parser::new_from_str(&text) {
        let result = match event {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => Err(TextProblem {
                line: error.marker().line(),
                message: format!(
                    "this is not valid YAML: {}; look at the indentation, a missing quote or colon, or a tab here or just above",
                    error.info()
                ),
            }),
        };
        if let Err(problem) = result {
            return (builder.documents, Some(problem));
        }
    }
    (builder.documents, None)
}

/// JSON writes characters beyond 16 bits as two escapes, which YAML does not know; they become the character itself.
fn join_surrogates(text: &str) -> Cow<'_, str> {
    if !text.trim_start().starts_with('{') || !text.contains("\\ud") && !text.contains("\\uD") {
        return Cow::Borrowed(text);
    }
    let mut joined = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        joined.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(char) = surrogate_pair(rest) {
            joined.push(char);
            rest = &rest["\\ud83d\\ude00".len()..];
        } else {
            // The backslash and what it escapes, so that an escaped backslash is not taken for the start of an escape.
            let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
            joined.push_str(&rest[..length]);
            rest = &rest[length..];
        }
    }
    joined.push_str(rest);
    Cow::Owned(joined)
}

/// The character that a text begins with as two escapes of UTF-16.
fn surrogate_pair(text: &str) -> Option<char> {
    let unit = |text: &str| u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
    let pair = [unit(text)?, unit(text.get("\\ud83d".len()..)?)?];
    match char::decode_utf16(pair).next() {
        Some(Ok(char)) if char.len_utf16() == 2 => Some(char),
        _ => None,
    }
}

impl Node {
    /// The value as serde reads it.
    pub(super) fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(list) => Value::Array(list.iter().map(|node| node.to_value()).collect()),
            Content::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, node)| (key.clone(), node.to_value()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// The value of a key, where this is a map that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Rc<Self>> {
        match &self.content {
            Content::Map(entries) => entries
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text of a key's value, where it is a text.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.content {
            Content::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The line of what a field path names, or of the innermost part of it that is written.
    pub(super) fn line_of(&self, path: &str) -> usize {
        if path.is_empty() {
            return self.line;
        }
        match &self.content {
            Content::Scalar(_) => self.line,
            Content::List(list) => {
                let found = path.strip_prefix('[').and_then(|rest| {
                    let (index, rest) = rest.split_once(']')?;
                    Some((list.get(index.parse::<usize>().ok()?)?, rest))
                });
                found.map_or(self.line, |(node, rest)| {
                    node.line_of(rest.strip_prefix('.').unwrap_or(rest))
                })
            }
            // Keys may have dots themselves, so the longest key that fits is taken.
            Content::Map(entries) => entries
                .iter()
                .filter_map(|(key, node)| {
                    let rest = path.strip_prefix(key.as_str())?;
                    let ends = rest.is_empty() || rest.starts_with('.') || rest.starts_with('[');
                    ends.then_some((key.len(), node, rest.strip_prefix('.').unwrap_or(rest)))
                })
                .max_by_key(|(length, ..)| *length)
                .map_or(self.line, |(_, node, rest)| node.line_of(rest)),
        }
    }

    fn size(&self) -> usize {
        match &self.content {
            Content::Scalar(_) => 1,
            Content::List(list) => list
                .iter()
                .fold(1, |sum, node| sum.saturating_add(node.size())),
            Content::Map(entries) => entries
                .iter()
                .fold(1, |sum, (_, node)| sum.saturating_add(node.size())),
        }
    }
}

/// A collection whose end has not come yet.
struct Open {
    line: usize,
    anchor: usize,
    content: OpenContent,
}

enum OpenContent {
    List(Vec<Rc<Node>>),
    Map {
        entries: Vec<(String, Rc<Node>)>,
        keys: HashSet<String>,
        key: Option<(String, usize, bool)>,
        merged: Vec<Rc<Node>>,
    },
}

#[derive(Default)]
struct Builder {
    stack: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    aliased: usize,
    documents: Vec<Document>,
    problems: Vec<TextProblem>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), TextProblem> {
        let line = span.start.line();
        match event {
            Event::DocumentStart(_) => self.anchors.clear(),
            Event::SequenceStart(anchor, _) => {
                self.open(line, anchor, OpenContent::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, _) => {
                let content = OpenContent::Map {
                    entries: Vec::new(),
                    keys: HashSet::new(),
                    key: None,
                    merged: Vec::new(),
                };
                self.open(line, anchor, content)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Scalar(text, style, anchor, tag) => {
                let is_plain = style == ScalarStyle::Plain;
                let value = scalar(&text, is_plain, tag.as_deref());
                let node = Rc::new(Node {
                    line,
                    content: Content::Scalar(value),
                });
                self.finish(node, anchor, Some((&text, is_plain)))?;
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(TextProblem {
                        line,
                        message: "this alias has no anchor before it".to_owned(),
                    });
                };
                self.aliased = self.aliased.saturating_add(node.size());
                if self.aliased > MAX_ALIASED {
                    let message = format!(
                        "aliases in this file add up to more than {MAX_ALIASED} values: write them out, or split the file"
                    );
                    return Err(TextProblem { line, message });
                }
                if self.stack.len() + height(&node) > MAX_DEPTH {
                    return Err(TextProblem {
                        line,
                        message: format!("values nest more than {MAX_DEPTH} deep"),
                    });
                }
                self.finish(node, 0, None)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn open(
        &mut self,
        line: usize,
        anchor: usize,
        content: OpenContent,
    ) -> Result<(), TextProblem> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(TextProblem {
                line,
                message: format!("values nest more than {MAX_DEPTH} deep"),
            });
        }
        self.stack.push(Open {
            line,
            anchor,
            content,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), TextProblem> {
        let Some(open) = self.stack.pop() else {
            return Ok(());
        };
        let content = match open.content {
            OpenContent::List(list) => Content::List(list),
            OpenContent::Map {
                mut entries,
                mut keys,
                merged,
                ..
            } => {
                for (key, node) in merged.iter().flat_map(|node| merge_entries(node)) {
                    if keys.insert(key.clone()) {
                        entries.push((key, node));
                    }
                }
                Content::Map(entries)
            }
        };
        self.finish(
            Rc::new(Node {
                line: open.line,
                content,
            }),
            open.anchor,
            None,
        )
    }

    /// Puts a finished value where it belongs. `scalar` is its text and whether it is plain, where it may be a key.
    fn finish(
        &mut self,
        node: Rc<Node>,
        anchor: usize,
        scalar: Option<(&str, bool)>,
    ) -> Result<(), TextProblem> {
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        let Some(open) = self.stack.last_mut() else {
            self.documents.push(Document {
                root: node,
                problems: std::mem::take(&mut self.problems),
            });
            return Ok(());
        };
        let (entries, keys, key, merged) = match &mut open.content {
            OpenContent::List(list) => {
                list.push(node);
                return Ok(());
            }
            OpenContent::Map {
                entries,
                keys,
                key,
                merged,
            } => (entries, keys, key, merged),
        };
        let Some((name, line, is_plain)) = key.take() else {
            *key = Some(key_of(&node, scalar)?);
            return Ok(());
        };
        if name == "<<" && is_plain {
            if merge_entries(&node).is_empty()
                && !matches!(&node.content, Content::Map(entries) if entries.is_empty())
            {
                return Err(TextProblem {
                    line,
                    message: "a merge key (<<) needs a map, or a list of maps".to_owned(),
                });
            }
            merged.push(node);
            return Ok(());
        }
        if !keys.insert(name.clone()) {
            self.problems.push(TextProblem {
                line,
                message: format!("the key {name:?} is written twice in one map: other readers would silently drop one of the two"),
            });
            return Ok(());
        }
        // A value is found at its key's line: that is where a person looks for the field.
        let node = if node.line == line {
            node
        } else {
            Rc::new(Node {
                line,
                content: node.content.clone(),
            })
        };
        entries.push((name, node));
        Ok(())
    }
}

fn key_of(node: &Node, scalar: Option<(&str, bool)>) -> Result<(String, usize, bool), TextProblem> {
    match (&node.content, scalar) {
        (Content::Scalar(_), Some((text, is_plain))) => Ok((text.to_owned(), node.line, is_plain)),
        (Content::Scalar(Value::String(text)), None) => Ok((text.clone(), node.line, false)),
        _ => Err(TextProblem {
            line: node.line,
            message: "a key must be a simple text".to_owned(),
        }),
    }
}

fn merge_entries(node: &Node) -> Vec<(String, Rc<Node>)> {
    match &node.content {
        Content::Map(entries) => entries.clone(),
        Content::List(list) => list
            .iter()
            .filter_map(|node| match &node.content {
                Content::Map(entries) => Some(entries.clone()),
                _ => None,
            })
            .flatten()
            .collect(),
        Content::Scalar(_) => Vec::new(),
    }
}

fn height(node: &Node) -> usize {
    match &node.content {
        Content::Scalar(_) => 0,
        Content::List(list) => 1 + list.iter().map(|node| height(node)).max().unwrap_or(0),
        Content::Map(entries) => {
            1 + entries
                .iter()
                .map(|(_, node)| height(node))
                .max()
                .unwrap_or(0)
        }
    }
}

/// The value of a scalar, by the rules of YAML 1.1 where Kubernetes' library follows them (`yes`, `on`, octal).
fn scalar(text: &str, is_plain: bool, tag: Option<&Tag>) -> Value {
    let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str")
        || tag.is_some_and(|tag| tag.handle.is_empty() && tag.suffix == "!");
    if !is_plain || is_text {
        return Value::String(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    if let Some(number) = integer(text).or_else(|| float(text)) {
        return Value::Number(number);
    }
    Value::String(text.to_owned())
}

fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if !digits.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        Some(_) if digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    let digits = digits.replace('_', "");
    if digits.is_empty() || !digits.bytes().all(|byte| char::from(byte).is_digit(radix)) {
        return None;
    }
    let magnitude = u64::from_str_radix(&digits, radix).ok()?;
    if negative {
        0_i64.checked_sub_unsigned(magnitude).map(Number::from)
    } else {
        Some(Number::from(magnitude))
    }
}

fn float(text: &str) -> Option<Number> {
    let is_float = text.bytes().any(|byte| byte.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'))
        && text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    if is_float {
        text.parse::<f64>().ok().and_then(Number::from_f64)
    } else {
        None
    }
}
