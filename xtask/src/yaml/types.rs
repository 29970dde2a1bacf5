//! Values as types of Rust, as sigs.k8s.io/yaml makes them types of Go: a number or a boolean may stand for a string, and
//! null for an empty string or list. An error names the line of what does not fit.

use std::{
    fmt::{self, Display},
    iter,
};

use serde::{
    Deserializer,
    de::{
        self, IntoDeserializer, Visitor,
        value::{MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::Number;

use crate::yaml::{
    node::{Data, Node, number},
    scalar::float_text,
};

/// What does not fit its type, and in which line that is.
#[derive(Debug)]
pub(crate) struct TypeError {
    message: String,
    line: Option<u32>,
}

impl Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for TypeError {}

impl de::Error for TypeError {
    fn custom<T: Display>(message: T) -> TypeError {
        TypeError {
            message: message.to_string(),
            line: None,
        }
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = TypeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        let read = match &self.data {
            Data::Null => visitor.visit_unit(),
            Data::Bool(it) => visitor.visit_bool(*it),
            Data::Number(it) => visit_number(number(*it), visitor),
            Data::Integer(it) => visitor.visit_i64(*it),
            Data::Text(text) => visitor.visit_str(text),
            Data::List(items) => visitor.visit_seq(SeqDeserializer::new(items.iter())),
            Data::Map(map) => {
                let entries = map.iter().map(|(key, it)| (&**key, it));
                visitor.visit_map(MapDeserializer::new(entries))
            }
            Data::Encrypted(_) => visitor.visit_str("encrypted"),
        };
        // The innermost value names its line first.
        read.map_err(|err: TypeError| TypeError {
            line: err.line.or(self.at.map(|it| it.line)),
            ..err
        })
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match &self.data {
            Data::Null => visitor.visit_str(""),
            Data::Bool(it) => visitor.visit_string(it.to_string()),
            Data::Number(it) => visitor.visit_string(float_text(*it)),
            Data::Integer(it) => visitor.visit_string(it.to_string()),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match &self.data {
            Data::Null => visitor.visit_seq(SeqDeserializer::new(iter::empty::<&Node>())),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.data {
            Data::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str bytes byte_buf unit unit_struct
        newtype_struct tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, TypeError> for &'de Node {
    type Deserializer = &'de Node;

    fn into_deserializer(self) -> &'de Node {
        self
    }
}

fn visit_number<'de, V: Visitor<'de>>(number: Number, visitor: V) -> Result<V::Value, TypeError> {
    if let Some(it) = number.as_i64() {
        visitor.visit_i64(it)
    } else if let Some(it) = number.as_u64() {
        visitor.visit_u64(it)
    } else {
        visitor.visit_f64(number.as_f64().unwrap_or_default())
    }
}
