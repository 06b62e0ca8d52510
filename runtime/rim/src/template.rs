//! Templates of `--format`: the part of Go's `text/template` that users of Docker write.
//!
//! ```text
//! {{.State.Status}}  {{json .}}  {{.Label "k"}}  {{index .Ports "80/tcp" 0}}  {{$x := .Name}}{{$x}}
//! {{range $k, $v := .Labels}}…{{else}}…{{end}}  {{if and .A (eq .B "c")}}…{{else if …}}…{{else}}…{{end}}  {{with .A}}…{{end}}
//! ```
//!
//! Takes a template and a JSON value, gives text. What a value lacks is an error and never an empty cell.
//! Trusts: neither. A template is parsed to a bounded depth and runs to a bounded number of steps and bytes.
//! Never: prints, reads a file, calls anything but the functions listed in `functions`.
//! Source: Go 1.23, text/template; moby 26.1, cli/command/formatter.

mod error;
mod functions;
mod lexer;
mod parser;
mod run;
mod tree;

use tree::{Command, Node, Operand, Pipeline};

pub use error::TemplateError;
pub use run::Subject;

/// A template that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    nodes: Vec<Node>,
}

impl Template {
    /// Longest template, in bytes.
    pub const LONGEST: usize = 64 * 1024;

    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError::Malformed`], with the place.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.len() > Self::LONGEST {
            return Err(TemplateError::Malformed { what: "it is longer than 64 KiB".into(), at: Self::LONGEST });
        }
        Ok(Self { nodes: parser::parse(text)? })
    }

    /// What it makes of a subject.
    ///
    /// # Errors
    /// [`TemplateError`], for a field that is not there in particular.
    pub fn render(&self, subject: &Subject<'_>) -> Result<String, TemplateError> {
        run::run(&self.nodes, subject)
    }

    /// The first field of the subject in each action that prints, conditions and loops apart.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Print(pipeline) => first_field(pipeline),
            _ => None,
        })
    }

    /// The names of the first fields that are printed by themselves, for the heading of a table: `{{.ID}}\t{{.Names}}` has two.
    #[must_use]
    pub fn heading(&self, word: impl Fn(&str) -> Option<String>) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            match node {
                Node::Text(plain) => text.push_str(plain),
                Node::Print(pipeline) => text.push_str(&first_field(pipeline).and_then(&word).unwrap_or_default()),
                _ => {}
            }
        }
        text
    }
}

fn first_field(pipeline: &Pipeline) -> Option<&str> {
    pipeline.iter().find_map(|command| {
        let operands: Vec<&Operand> = match command {
            Command::Call(_, arguments) => arguments.iter().collect(),
            Command::Value(operand, _) => vec![operand],
        };
        operands.into_iter().find_map(|operand| match operand {
            Operand::Field(None, path) => path.first().map(String::as_str),
            _ => None,
        })
    })
}

#[cfg(test)]
mod tests;
