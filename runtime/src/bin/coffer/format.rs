//! What `--format` makes of rows: `json`, a template, or `table` and a template.

use coffer_rim::foreign::escape_all_but_lines;
use coffer_rim::template::{Subject, Template, TemplateError};
use serde_json::{Map, Value};

use crate::error::CliError;
use crate::table;

/// How rows are shown.
#[derive(Debug)]
pub enum Format {
    /// Each as one line of JSON.
    Json,
    /// Each as the template has it, in a line.
    Lines(Template),
    /// Under a heading, in columns where the template has tabs.
    Table(Template),
}

/// A row for templates.
#[derive(Clone, Debug)]
pub struct Fields {
    /// Its fields, by their names in templates.
    pub value: Value,
    /// What `.Label "key"` finds.
    pub labels: Map<String, Value>,
}

impl Fields {
    /// What a template makes of it.
    fn shown(&self, template: &Template) -> Result<String, CliError> {
        let subject = Subject { value: &self.value, labels: Some(&self.labels) };
        Ok(escape_all_but_lines(&template.render(&subject)?).into_owned())
    }
}

impl Format {
    /// Reads what was given. `\t` and `\n` stand for themselves, as a shell leaves them.
    ///
    /// # Errors
    /// Class `usage`.
    pub fn parse(text: &str) -> Result<Self, CliError> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        Ok(match text.strip_prefix("table") {
            _ if text == "json" => Self::Json,
            Some(rest) if rest.starts_with(char::is_whitespace) => Self::Table(Template::parse(rest.trim_start())?),
            _ => Self::Lines(Template::parse(&text)?),
        })
    }

    /// The same for rows that have these fields and no others but `.Label "KEY"`: what names another is refused also where there are no rows.
    ///
    /// # Errors
    /// Class `usage`, or `not-found` for a field that rows do not have.
    pub fn of(text: &str, fields: &[&str]) -> Result<Self, CliError> {
        let format = Self::parse(text)?;
        if let Self::Lines(template) | Self::Table(template) = &format
            && let Some(name) = template.fields().find(|name| !fields.contains(name) && *name != "Label")
        {
            let there = fields.iter().map(ToString::to_string).collect();
            return Err(TemplateError::NoField { name: name.into(), there }.into());
        }
        Ok(format)
    }

    /// Prints rows. `heading`: what stands above a field that is not its name.
    ///
    /// # Errors
    /// Class `not-found` for a field that rows do not have.
    pub fn print(&self, rows: &[Fields], heading: &[(&str, &str)]) -> Result<(), CliError> {
        match self {
            Self::Json => rows.iter().for_each(|row| println!("{}", row.value)),
            Self::Lines(template) => {
                // All of them before the first is printed: a field that is not there is no half of an answer.
                let lines = rows.iter().map(|row| row.shown(template)).collect::<Result<Vec<_>, _>>()?;
                for line in lines {
                    println!("{line}");
                }
            }
            Self::Table(template) => {
                let rows = rows.iter().map(|row| row.shown(template)).collect::<Result<Vec<_>, _>>()?;
                let above = template.heading(|field| {
                    let named = heading.iter().find(|(name, _)| *name == field);
                    Some(named.map_or_else(|| field.to_uppercase(), |(_, above)| (*above).to_owned()))
                });
                let rows: Vec<Vec<String>> =
                    rows.iter().map(|row| row.split('\t').map(str::to_owned).collect()).collect();
                table::print(&above.split('\t').collect::<Vec<_>>(), &rows);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    #[test]
    fn the_three_forms_are_told_apart() {
        assert!(matches!(Format::parse("json").unwrap(), Format::Json));
        assert!(matches!(Format::parse("{{json .}}").unwrap(), Format::Lines(_)));
        assert!(matches!(Format::parse("table {{.ID}}\\t{{.Names}}").unwrap(), Format::Table(_)));
        assert!(matches!(Format::parse("tables").unwrap(), Format::Lines(_)));
        assert!(Format::parse("table {{").is_err());
    }

    #[test]
    fn a_field_that_no_row_has_is_refused_before_there_is_one() {
        for text in ["{{.Nope}}", "table {{.ID}}\\t{{.Nope}}", "{{.ID}} {{upper .Nope}}", "{{.Nope.ID}}"] {
            let refused = Format::of(text, &["ID"]).unwrap_err();
            assert!(refused.class == Class::NotFound && refused.message.contains("Nope"), "{text}: {refused}");
        }
        for text in
            ["json", "{{.ID}}", "{{json .}}", "{{.Label \"Nope\"}}", "{{with .ID}}{{.}}{{end}}", "{{$x := .ID}}{{$x}}"]
        {
            assert!(Format::of(text, &["ID"]).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_a_template_makes_moves_no_cursor_and_keeps_its_lines() {
        let template = Template::parse("{{.a}}\n{{.a}}").unwrap();
        let row = Fields { value: serde_json::json!({ "a": "\u{1b}[2J\tx" }), labels: Map::new() };
        assert_eq!(row.shown(&template).unwrap(), "\\u{1b}[2J\tx\n\\u{1b}[2J\tx");
    }
}
