//! What a template is made of.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Text(String),
    Print(Pipeline),
    /// A variable, and whether it is a new one.
    Set(String, bool, Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    /// Variables for key and value, if they are named.
    Range(Vec<String>, Pipeline, Vec<Node>, Vec<Node>),
}

/// Commands, each given what the one before it made.
pub type Pipeline = Vec<Command>;

#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A function and its arguments.
    Call(String, Vec<Operand>),
    /// A value; words behind a field are arguments of a method.
    Value(Operand, Vec<Operand>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    Literal(Value),
    /// A variable (`$` has the empty name), or without one the dot; and fields of it.
    Field(Option<String>, Vec<String>),
    Group(Pipeline, Vec<String>),
}
