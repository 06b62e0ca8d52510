//! Where in a text of TOML a key stands, as far as its lines tell. For people, who look there: what is not found is line 1.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(super) struct Places<'a>(&'a str);

impl<'a> Places<'a> {
    pub const fn of(text: &'a str) -> Self {
        Self(text)
    }

    /// Line and column of a byte.
    pub fn byte(&self, at: usize) -> (u32, u32) {
        let before = self.0.get(..at).unwrap_or(self.0);
        let line = before.rsplit('\n').next().unwrap_or_default();
        (number(before.matches('\n').count()), number(line.chars().count()))
    }

    /// Of a key by its road; of the table that it is in, where it has no line of its own.
    pub fn key(&self, road: &[&str]) -> (u32, u32) {
        match road {
            [] => (1, 1),
            [key] => self.lines().find(|line| line.begins(None, key) || line.heads(key)).map_or((1, 1), Line::place),
            [table, key, ..] => {
                let dotted = format!("{table}.{key}");
                let own = self.lines().find(|line| line.begins(Some(table), key) || line.begins(None, &dotted));
                own.map_or_else(|| self.key(&[table]), Line::place)
            }
        }
    }

    /// Of one of several tables of one name.
    pub fn item(&self, key: &str, number: usize) -> (u32, u32) {
        self.lines().filter(|line| line.heads(key)).nth(number).map_or_else(|| self.key(&[key]), Line::place)
    }

    /// Of one element of a list.
    pub fn element(&self, key: &str, number: usize) -> (u32, u32) {
        let found = DeTable::parse(self.0).ok().and_then(|document| {
            let (_, list) = held(document.get_ref(), key)?;
            Some(list.get_ref().as_array()?.get(number)?.span().start)
        });
        found.map_or_else(|| self.key(&[key]), |at| self.byte(at))
    }

    /// Of a key by its road in one of several tables.
    pub fn member(&self, key: &str, number: usize, road: &[&str]) -> (u32, u32) {
        let found = DeTable::parse(self.0).ok().and_then(|document| {
            let (_, list) = held(document.get_ref(), key)?;
            let mut table = list.get_ref().as_array()?.get(number)?.get_ref().as_table()?;
            let (last, above) = road.split_last()?;
            for name in above {
                table = held(table, name)?.1.get_ref().as_table()?;
            }
            Some(held(table, last)?.0)
        });
        found.map_or_else(|| self.item(key, number), |at| self.byte(at))
    }

    fn lines(&self) -> impl Iterator<Item = Line<'a>> {
        let mut table = None;
        self.0.lines().enumerate().map(move |(index, text)| {
            let line = Line { index, text, table };
            if let Some(name) = line.heading() {
                table = Some(name);
            }
            line
        })
    }
}

#[derive(Clone, Copy)]
struct Line<'a> {
    index: usize,
    text: &'a str,
    /// The table that the line is in.
    table: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn place(self) -> (u32, u32) {
        let indent = self.text.len() - self.text.trim_start().len();
        (number(self.index), number(indent))
    }

    /// The name, of `[name]` and `[[name]]`.
    fn heading(&self) -> Option<&'a str> {
        let inner = self.text.trim_start().strip_prefix('[')?;
        let inner = inner.strip_prefix('[').unwrap_or(inner);
        let name = inner.split(']').next()?.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        (!name.is_empty() && name.chars().all(plain)).then_some(name)
    }

    fn heads(&self, key: &str) -> bool {
        self.heading() == Some(key)
    }

    fn begins(&self, table: Option<&str>, key: &str) -> bool {
        let rest = self.text.trim_start().strip_prefix(key);
        self.table == table && rest.is_some_and(|rest| rest.trim_start().starts_with(['=', '.']))
    }
}

/// Where a key of this name begins, and its value.
fn held<'t, 'a>(table: &'t DeTable<'a>, key: &str) -> Option<(usize, &'t Spanned<DeValue<'a>>)> {
    let found = table.iter().find(|(name, _)| &**name.get_ref() == key);
    found.map(|(name, value)| (name.span().start, value))
}

fn number(from_zero: usize) -> u32 {
    u32::try_from(from_zero).unwrap_or(u32::MAX).saturating_add(1)
}
