//! Expressions of GitHub's workflows: names, texts, operators and the functions that ours use.
//! <https://docs.github.com/actions/reference/workflows-and-actions/expressions>

use serde_json::Value;

/// What an expression gives.
pub(crate) fn evaluate(text: &str, context: &Value) -> Value {
    let mut parser = Parser {
        rest: text.trim(),
        context,
    };
    let value = parser.any();
    assert!(parser.rest.is_empty(), "{}: {text}", parser.rest);
    value
}

pub(crate) fn is_true(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false)) && *value != ""
}

struct Parser<'a> {
    rest: &'a str,
    context: &'a Value,
}

impl<'a> Parser<'a> {
    /// Whether this comes next; then it is taken.
    fn takes(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.map_or(self.rest, str::trim_start);
        rest.is_some()
    }

    fn any(&mut self) -> Value {
        let mut value = self.all();
        while self.takes("||") {
            let other = self.all();
            value = if is_true(&value) { value } else { other };
        }
        value
    }

    fn all(&mut self) -> Value {
        let mut value = self.comparison();
        while self.takes("&&") {
            let other = self.comparison();
            value = if is_true(&value) { other } else { value };
        }
        value
    }

    fn comparison(&mut self) -> Value {
        let value = self.not();
        if self.takes("==") {
            return (value == self.not()).into();
        }
        if self.takes("!=") {
            return (value != self.not()).into();
        }
        value
    }

    fn not(&mut self) -> Value {
        if self.takes("!") {
            return (!is_true(&self.not())).into();
        }
        let mut value = self.single();
        loop {
            if self.takes(".") {
                value = value[self.name()].clone();
            } else if self.takes("[") {
                let index: usize = self.name().parse().unwrap();
                value = value[index].clone();
                assert!(self.takes("]"));
            } else {
                return value;
            }
        }
    }

    fn single(&mut self) -> Value {
        if self.takes("(") {
            let value = self.any();
            assert!(self.takes(")"));
            return value;
        }
        if self.takes("'") {
            let (text, rest) = self.rest.split_once('\'').unwrap();
            self.rest = rest.trim_start();
            return text.into();
        }
        let name = self.name();
        if !self.takes("(") {
            return self.context[name].clone();
        }
        let mut args = Vec::new();
        while !self.takes(")") {
            args.push(self.any());
            self.takes(",");
        }
        self.call(name, &args)
    }

    fn name(&mut self) -> &'a str {
        let is_of_name = |it: char| it.is_alphanumeric() || "_-".contains(it);
        let end = self.rest.find(|it| !is_of_name(it));
        let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        assert!(!name.is_empty(), "{}", self.rest);
        self.rest = rest.trim_start();
        name
    }

    fn call(&self, name: &str, args: &[Value]) -> Value {
        let text = |nth: usize| args[nth].as_str().unwrap_or_default();
        match name {
            "cancelled" => false.into(),
            "failure" => self.context["failure"].clone(),
            "fromJson" => serde_json::from_str(text(0)).unwrap(),
            "toJson" => serde_json::to_string_pretty(&args[0]).unwrap().into(),
            "contains" => args[0].as_array().map_or_else(
                || text(0).contains(text(1)).into(),
                |items| items.contains(&args[1]).into(),
            ),
            "join" => {
                let items = args[0].as_array().unwrap().iter();
                let items: Vec<_> = items.map(|it| it.as_str().unwrap()).collect();
                items.join(text(1)).into()
            }
            _ => panic!("{name}"),
        }
    }
}
