//! Runs nodes.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::error::TemplateError;
use super::functions::{self, is_true, print_to, weight};
use super::tree::{Command, Node, Operand};

/// What a template is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The dot.
    pub value: &'a Value,
    /// What `.Label "key"` looks in, where there is such a method.
    pub labels: Option<&'a Map<String, Value>>,
}

/// Bytes of what is made.
const MOST_BYTES: usize = 16 << 20;
/// Bytes of all values that are made or copied on the way, together.
const MOST_VALUES: usize = 64 << 20;
/// Nodes and commands that are run.
const MOST_STEPS: usize = 1_000_000;

type Ran<T> = Result<T, TemplateError>;

/// What the nodes make.
pub fn run(nodes: &[Node], subject: &Subject<'_>) -> Ran<String> {
    let mut run = Run { text: String::new(), steps: 0, values: 0, variables: Vec::new(), subject };
    run.nodes(nodes, subject.value)?;
    Ok(run.text)
}

struct Run<'a> {
    text: String,
    steps: usize,
    values: usize,
    variables: Vec<(String, Value)>,
    subject: &'a Subject<'a>,
}

impl Run<'_> {
    fn step(&mut self) -> Ran<()> {
        self.steps += 1;
        if self.steps > MOST_STEPS { Err(TemplateError::TooMuch("1000000 steps")) } else { Ok(()) }
    }

    /// Weighs what is about to be copied, or was just made.
    fn weigh(&mut self, bytes: usize) -> Ran<()> {
        self.values = weighed(self.values, bytes)?;
        Ok(())
    }

    fn copy(&mut self, value: &Value) -> Ran<Value> {
        self.weigh(weight(value))?;
        Ok(value.clone())
    }

    fn owned(&mut self, value: Cow<'_, Value>) -> Ran<Value> {
        match value {
            Cow::Borrowed(value) => self.copy(value),
            Cow::Owned(value) => Ok(value),
        }
    }

    fn print(&mut self, value: &Value) -> Ran<()> {
        if print_to(&mut self.text, value, MOST_BYTES) { Ok(()) } else { Err(TemplateError::TooMuch("16 MiB")) }
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Ran<()> {
        let kept = self.variables.len();
        for node in nodes {
            self.step()?;
            self.node(node, dot)?;
            if self.text.len() > MOST_BYTES {
                return Err(TemplateError::TooMuch("16 MiB"));
            }
        }
        self.variables.truncate(kept);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Ran<()> {
        match node {
            Node::Text(text) => self.text.push_str(text),
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                self.print(&value)?;
            }
            Node::Set(name, is_new, pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                let value = self.owned(value)?;
                if *is_new {
                    self.variables.push((name.clone(), value));
                } else {
                    let known = self.variables.iter_mut().rfind(|(known, _)| known == name);
                    known.ok_or_else(|| no_variable(name))?.1 = value;
                }
            }
            Node::If(pipeline, body, otherwise) => {
                let chosen = if is_true(&*self.pipeline(pipeline, dot)?) { body } else { otherwise };
                self.nodes(chosen, dot)?;
            }
            Node::With(pipeline, body, otherwise) => {
                let value = self.pipeline(pipeline, dot)?;
                if is_true(&value) { self.nodes(body, &value)? } else { self.nodes(otherwise, dot)? }
            }
            Node::Range(names, pipeline, body, otherwise) => {
                let over = self.pipeline(pipeline, dot)?;
                if !is_true(&over) {
                    return self.nodes(otherwise, dot);
                }
                match &*over {
                    Value::Array(list) => {
                        for (index, value) in list.iter().enumerate() {
                            self.turn(names, index.into(), value, body)?;
                        }
                    }
                    Value::Object(map) => {
                        for (key, value) in map {
                            self.turn(names, key.as_str().into(), value, body)?;
                        }
                    }
                    other => {
                        let what = format!("cannot range over {}", functions::beginning(other));
                        return Err(TemplateError::Argument { function: "range".into(), what });
                    }
                }
            }
        }
        Ok(())
    }

    fn turn(&mut self, names: &[String], key: Value, value: &Value, body: &[Node]) -> Ran<()> {
        let kept = self.variables.len();
        match names {
            [one] => {
                let value = self.copy(value)?;
                self.variables.push((one.clone(), value));
            }
            [one, other] => {
                let value = self.copy(value)?;
                self.variables.push((one.clone(), key));
                self.variables.push((other.clone(), value));
            }
            _ => {}
        }
        self.step()?;
        self.nodes(body, value)?;
        self.variables.truncate(kept);
        Ok(())
    }

    fn pipeline<'v>(&mut self, pipeline: &[Command], dot: &'v Value) -> Ran<Cow<'v, Value>> {
        let mut last = None;
        for command in pipeline {
            self.step()?;
            last = Some(match command {
                Command::Value(operand, arguments) => self.value(operand, arguments, dot)?,
                Command::Call(name, operands) => {
                    let mut given = Vec::with_capacity(operands.len() + 1);
                    for operand in operands {
                        let value = self.operand(operand, dot)?;
                        given.push(self.owned(value)?);
                    }
                    if let Some(last) = last {
                        given.push(self.owned(last)?);
                    }
                    let made = functions::call(name, given, MOST_VALUES.saturating_sub(self.values))?;
                    self.weigh(weight(&made))?;
                    Cow::Owned(made)
                }
            });
        }
        Ok(last.unwrap_or(Cow::Owned(Value::Null)))
    }

    fn value<'v>(&mut self, operand: &Operand, arguments: &[Operand], dot: &'v Value) -> Ran<Cow<'v, Value>> {
        if arguments.is_empty() {
            return self.operand(operand, dot);
        }
        let is_label = matches!(operand, Operand::Field(_, path) if path.len() == 1 && path[0] == "Label");
        match (self.subject.labels, arguments, is_label) {
            (Some(labels), [key], true) => {
                let key = self.operand(key, dot)?;
                match key.as_str().and_then(|key| labels.get(key)) {
                    Some(found) => self.copy(found).map(Cow::Owned),
                    None => Ok(Cow::Owned(String::new().into())),
                }
            }
            _ => Err(TemplateError::Argument { function: "a field".into(), what: "it takes no arguments".into() }),
        }
    }

    fn operand<'v>(&mut self, operand: &Operand, dot: &'v Value) -> Ran<Cow<'v, Value>> {
        match operand {
            Operand::Literal(value) => self.copy(value).map(Cow::Owned),
            Operand::Field(None, path) => fields(dot, path).map(Cow::Borrowed),
            Operand::Field(Some(name), path) if name.is_empty() => {
                self.copy(fields(self.subject.value, path)?).map(Cow::Owned)
            }
            Operand::Field(Some(name), path) => {
                let known = self.variables.iter().rfind(|(known, _)| known == name);
                let (_, value) = known.ok_or_else(|| no_variable(name))?;
                let found = fields(value, path)?;
                // Weighed before it is copied.
                self.values = weighed(self.values, weight(found))?;
                Ok(Cow::Owned(found.clone()))
            }
            Operand::Group(pipeline, path) => {
                let value = self.pipeline(pipeline, dot)?;
                match value {
                    Cow::Borrowed(value) => fields(value, path).map(Cow::Borrowed),
                    Cow::Owned(value) if path.is_empty() => Ok(Cow::Owned(value)),
                    Cow::Owned(value) => self.copy(fields(&value, path)?).map(Cow::Owned),
                }
            }
        }
    }
}

/// All that was made and copied, with so many bytes more.
fn weighed(before: usize, bytes: usize) -> Ran<usize> {
    let all = before.saturating_add(bytes);
    if all > MOST_VALUES { Err(TemplateError::TooMuch("64 MiB on the way")) } else { Ok(all) }
}

fn no_variable(name: &str) -> TemplateError {
    TemplateError::NoField { name: format!("${name}"), there: Vec::new() }
}

fn fields<'v>(value: &'v Value, path: &[String]) -> Ran<&'v Value> {
    path.iter().try_fold(value, |at, name| {
        at.get(name.as_str()).ok_or_else(|| TemplateError::NoField {
            name: name.clone(),
            there: at.as_object().map(|map| map.keys().take(MOST_NAMED).cloned().collect()).unwrap_or_default(),
        })
    })
}

/// Names of what is there, in an error.
const MOST_NAMED: usize = 40;
