//! From pieces to nodes.

use serde_json::Value;

use super::error::TemplateError;
use super::functions;
use super::lexer::{Piece, Word, malformed, pieces, words};
use super::tree::{Command, Node, Operand, Pipeline};

/// Blocks within blocks, and brackets within brackets.
const DEEPEST: usize = 32;

type Read<T> = Result<T, TemplateError>;

/// Nodes of a whole template.
pub fn parse(text: &str) -> Read<Vec<Node>> {
    let mut parser = Parser { pieces: pieces(text)?.into_iter(), depth: 0 };
    match parser.block()? {
        (nodes, None) => Ok(nodes),
        (_, Some((word, at))) => malformed(&format!("{word} without a beginning"), at),
    }
}

struct Parser<'a> {
    pieces: std::vec::IntoIter<Piece<'a>>,
    depth: usize,
}

/// What ends a block: `end` or `else`, with the rest of its words, and where.
type End = (String, usize);

impl Parser<'_> {
    fn block(&mut self) -> Read<(Vec<Node>, Option<End>)> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (action, at) = match piece {
                Piece::Text("") => continue,
                Piece::Text(text) => {
                    nodes.push(Node::Text(text.into()));
                    continue;
                }
                Piece::Action(action, at) => (action, at),
            };
            let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
            match word {
                "end" | "else" => return Ok((nodes, Some((action.to_owned(), at)))),
                "if" | "with" | "range" => nodes.push(self.control(word, rest, at)?),
                _ => nodes.push(simple(action, at)?),
            }
        }
        Ok((nodes, None))
    }

    fn control(&mut self, word: &str, head: &str, at: usize) -> Read<Node> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return malformed("more than 32 blocks in each other", at);
        }
        let mut head = Words::of(head, at)?;
        let variables = if word == "range" { head.declared() } else { Vec::new() };
        let pipeline = head.whole_pipeline()?;
        let (body, end) = self.block()?;
        let otherwise = match end {
            Some((end, _)) if end == "end" => Vec::new(),
            Some((end, _)) if end == "else" => match self.block()? {
                (nodes, Some((end, _))) if end == "end" => nodes,
                _ => return malformed(&format!("{word} without end"), at),
            },
            Some((end, at)) => match end.strip_prefix("else").map(str::trim_start) {
                Some(chained) if chained.split_whitespace().next() == Some(word) && word != "range" => {
                    vec![self.control(word, chained[word.len()..].trim_start(), at)?]
                }
                _ => return malformed("else with words that are not if", at),
            },
            None => return malformed(&format!("{word} without end"), at),
        };
        self.depth -= 1;
        Ok(match word {
            "if" => Node::If(pipeline, body, otherwise),
            "with" => Node::With(pipeline, body, otherwise),
            _ => Node::Range(variables, pipeline, body, otherwise),
        })
    }
}

fn simple(action: &str, at: usize) -> Read<Node> {
    let mut words = Words::of(action, at)?;
    match words.all.get(..2) {
        Some([Word::Variable(name), sign @ (Word::Declare | Word::Assign)]) if !name.is_empty() => {
            let (name, is_new) = (name.clone(), *sign == Word::Declare);
            words.at = 2;
            Ok(Node::Set(name, is_new, words.whole_pipeline()?))
        }
        _ => Ok(Node::Print(words.whole_pipeline()?)),
    }
}

struct Words {
    all: Vec<Word>,
    at: usize,
    /// Of the action in the template.
    start: usize,
    depth: usize,
}

impl Words {
    fn of(action: &str, start: usize) -> Read<Self> {
        Ok(Self { all: words(action, start)?, at: 0, start, depth: 0 })
    }

    fn next(&mut self) -> Option<Word> {
        let word = self.all.get(self.at).cloned();
        self.at += 1;
        word
    }

    fn peek(&self) -> Option<&Word> {
        self.all.get(self.at)
    }

    /// `$k, $v :=` or `$v :=` at the beginning.
    fn declared(&mut self) -> Vec<String> {
        match self.all.as_slice() {
            [Word::Variable(one), Word::Comma, Word::Variable(other), Word::Declare, ..] => {
                self.at = 4;
                vec![one.clone(), other.clone()]
            }
            [Word::Variable(one), Word::Declare, ..] => {
                self.at = 2;
                vec![one.clone()]
            }
            _ => Vec::new(),
        }
    }

    fn whole_pipeline(&mut self) -> Read<Pipeline> {
        let pipeline = self.pipeline()?;
        if self.at < self.all.len() { malformed("words behind the end", self.start) } else { Ok(pipeline) }
    }

    fn pipeline(&mut self) -> Read<Pipeline> {
        let mut pipeline = vec![self.command()?];
        while self.peek() == Some(&Word::Pipe) {
            self.at += 1;
            let command = self.command()?;
            if matches!(command, Command::Value(..)) {
                return malformed("behind | stands a function", self.start);
            }
            pipeline.push(command);
        }
        Ok(pipeline)
    }

    fn command(&mut self) -> Read<Command> {
        if let Some(Word::Name(name)) = self.peek()
            && !["true", "false", "nil"].contains(&name.as_str())
        {
            let name = name.clone();
            if !functions::is_known(&name) {
                return malformed(&format!("there is no function {name:?}"), self.start);
            }
            self.at += 1;
            return Ok(Command::Call(name, self.operands()?));
        }
        let Some(first) = self.operand()? else { return malformed("a value is missing", self.start) };
        let arguments = self.operands()?;
        if !arguments.is_empty() && !matches!(&first, Operand::Field(_, path) if !path.is_empty()) {
            return malformed("a value takes no arguments", self.start);
        }
        Ok(Command::Value(first, arguments))
    }

    fn operands(&mut self) -> Read<Vec<Operand>> {
        let mut all = Vec::new();
        while let Some(operand) = self.operand()? {
            all.push(operand);
        }
        Ok(all)
    }

    fn operand(&mut self) -> Read<Option<Operand>> {
        let Some(word) = self.peek().cloned() else { return Ok(None) };
        let operand = match word {
            Word::Pipe | Word::Close => return Ok(None),
            Word::Name(name) => {
                self.at += 1;
                Operand::Literal(match name.as_str() {
                    "true" => Value::Bool(true),
                    "false" => Value::Bool(false),
                    "nil" => Value::Null,
                    // A function without arguments makes nothing here.
                    _ => return malformed(&format!("{name:?} is no value"), self.start),
                })
            }
            Word::String(text) => {
                self.at += 1;
                Operand::Literal(Value::String(text))
            }
            Word::Number(number) => {
                self.at += 1;
                Operand::Literal(number.into())
            }
            Word::Dot => {
                self.at += 1;
                Operand::Field(None, self.path(false))
            }
            Word::Field(..) => Operand::Field(None, self.path(true)),
            Word::Variable(name) => {
                self.at += 1;
                Operand::Field(Some(name), self.path(false))
            }
            Word::Open => {
                self.at += 1;
                self.depth += 1;
                if self.depth > DEEPEST {
                    return malformed("more than 32 brackets in each other", self.start);
                }
                let pipeline = self.pipeline()?;
                if self.next() != Some(Word::Close) {
                    return malformed("a bracket without its end", self.start);
                }
                self.depth -= 1;
                Operand::Group(pipeline, self.path(false))
            }
            Word::Comma | Word::Declare | Word::Assign => return malformed("a word out of place", self.start),
        };
        Ok(Some(operand))
    }

    /// Fields that follow each other at once; the first of them may stand behind a blank.
    fn path(&mut self, mut first: bool) -> Vec<String> {
        let mut path = Vec::new();
        while let Some(Word::Field(name, after_blank)) = self.peek() {
            if *after_blank && !first {
                break;
            }
            first = false;
            path.push(name.clone());
            self.at += 1;
        }
        path
    }
}
