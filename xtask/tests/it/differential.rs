//! What `validate hub-config` says of values, and what helm says of the same files. helm is the oracle: no case records
//! a verdict. Whatever helm refuses for its YAML, its values or a schema has to be a problem here. The other way round
//! only the rules in `STRICTER` may tell of problems where helm sees none.
//!
//! Most cases pin all that helm computes: it renders the chart's values as JSON, these become the `const` of the
//! chart's schema, and what each subchart gets becomes that of its own. Whoever computes anything else refuses.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use crate::{
    repo::{Repo, tool},
    upstream::package,
};

/// Rules for what helm reads, though hardly as it was meant.
const STRICTER: [&str; 5] =
    ["byte-order-mark", "dropped-content", "duplicate-key", "second-document", "too-deep"];

/// Each is a value. In all tables `¦` separates, and `escape` has the signs for what can't be seen.
const SCALARS: &str = r#"
y ¦ n ¦ yes ¦ YES ¦ yEs ¦ no ¦ on ¦ oN ¦ off ¦ true ¦ tRUE ¦ ~ ¦ null ¦ NULL ¦ nULL ¦ ~~ ¦ 0777 ¦ 0o17 ¦ 0o8 ¦ 012
08 ¦ 089 ¦ -012 ¦ 1_000 ¦ _1 ¦ 1_ ¦ 0_7 ¦ 0x1F ¦ 0x_1 ¦ 0x ¦ -0x1F ¦ 0b11 ¦ 0B11 ¦ 0b2 ¦ +1 ¦ +-1 ¦ - ¦ 1. ¦ .5
-.5 ¦ +.5 ¦ .5_0 ¦ ._5 ¦ . ¦ 1e3 ¦ 1e ¦ 1.e1 ¦ 1e400 ¦ 1e-400 ¦ 1_0.5 ¦ 0x1p4 ¦ .0x1p4 ¦ .inf ¦ -.inf ¦ .iNF ¦ .nan
Infinity ¦ 1:30 ¦ 2001-12-14 ¦ 2001-13-14 ¦ 2001-12-14T21:59:43.10-05:00 ¦ 2001-12-14 21:59:43.10 -5
!!timestamp 2001-12-14 ¦ !!timestamp x ¦ !!timestamp "2001-12-14" ¦ 'yes' ¦ "1" ¦ "\x41\u00e9" ¦ "\/" ¦ "\e\a\_\N"
"\ud83d\ude00" ¦ "\ud83d" ¦ "\U0010FFFF" ¦ "\U00110000" ¦ "\x4" ¦ !!int 12 ¦ !!int "12" ¦ !!int x ¦ !!int 1.5
!!int "" ¦ !!int ¦ !!float 1 ¦ !!float "1.5" ¦ !!float .inf ¦ !!float 0x10 ¦ !!float 18446744073709551615 ¦ !!str 1
!!str ~ ¦ !!str ¦ !!binary aGk= ¦ !!binary "a" ¦ !!binary gA== ¦ !!bool maybe ¦ !!bool yes ¦ !!bool "yes" ¦ !!null x
!!null ~ ¦ !!null [1] ¦ !custom 1 ¦ !custom ¦ !local [1] ¦ !<tag:yaml.org,2002:int> 12 ¦ !<x> 1 ¦ !< 1 ¦ !!seq [1]
!!map {a: 1} ¦ !!seq {a: 1} ¦ !!set {a} ¦ !!foo 1 ¦ ! 12 ¦ !!int [1] ¦ !x!y 1 ¦ !!merge << ¦ << ¦ =
9007199254740993 ¦ 9223372036854775807 ¦ 9223372036854775808 ¦ 18446744073709551615 ¦ 18446744073709551616
-9223372036854775808 ¦ 123456789012345678901234567890 ¦ 0xFFFFFFFFFFFFFFFF ¦ 0xFFFFFFFFFFFFFFFFF
1.7976931348623157e308 ¦ 4.9e-324 ¦ 0.1 ¦ 1.0 ¦ -0 ¦ -0.0 ¦ 1e21 ¦ 1e-7 ¦ @x ¦ %x ¦ *x ¦ &x ¦ &x 1 ¦ !!int &x 1
&x &y 1 ¦ - 1 ¦ ? 1 ¦ a: b ¦ a #b ¦ a#b ¦ {a: b ¦ [a,] ¦ [,] ¦ [a,,b] ¦ {a} ¦ {a, b: 1} ¦ {a:1} ¦ {"a":1}
{? a : b} ¦ [a: 1] ¦ [? a] ¦ ["b":c] ¦ [1]] ¦ {a: 1}} ¦ [-] ¦ [- 1] ¦ [http://x, a:b] ¦ {http://x} ¦ 'a' b ¦ 'it''s'
'x ¦ |0 ¦ |12 ¦ > ¦ 😀 ¦ ]
"#;

/// Each is a key.
const KEYS: &str = r#"
y ¦ yes ¦ on ¦ true ¦ 1 ¦ 0777 ¦ 1_0 ¦ 1.5 ¦ 1e3 ¦ 1e400 ¦ 16777217.5 ¦ 3.4e39 ¦ 1e-50 ¦ 1e21 ¦ -1 ¦ -0.0
9007199254740993 ¦ 18446744073709551615 ¦ 18446744073709551616 ¦ .inf ¦ .nan ¦ ~ ¦ '' ¦ [a] ¦ [] ¦ !!int "1"
!!str 1 ¦ !!str ~ ¦ !!binary aGk= ¦ !!null x ¦ !x y ¦ 2001-12-14 ¦ "<<" ¦ a b ¦ *x ¦ &x a ¦ - ¦ ? ¦ ? a
"#;

/// Each is a whole values file.
const DOCUMENTS: &str = r#"
⏎ ¦ # only ¦ # a⏎---⏎# b ¦ --- ¦ --- # c⏎a: 1 ¦ ---⇥# c⏎a: 1 ¦ ---⏎---⏎a: 1 ¦ ---- ¦ ---x ¦ a: 1⏎---x ¦ --- {a: 1}
--- |⏎ x ¦ a: 1⏎---⏎b: 2 ¦ a: {x: 1}⏎---⏎a: {w: 2} ¦ a: {x: 1}⏎---⏎a: 2 ¦ a: 1⏎---⏎a: ~ ¦ a: 1⏎---⏎- 1
a: 1⏎---⏎b: [ ¦ a: &x 1⏎---⏎b: *x ¦ a: |⏎  x⏎---⏎b: 1 ¦ a: |⏎  ---⏎  x ¦ a: "x⏎---⏎y" ¦ a: 'x⏎--- y' ¦ a: [1,⏎---⏎2]
a: 1⏎...⏎b: 2 ¦ a: 1⏎...⏎---⏎b: 2 ¦ ...⏎a: 1 ¦ a: 1⏎... x ¦ a: 1⏎...x ¦ %YAML 1.1⏎---⏎a: 1 ¦ %YAML 1.2⏎---⏎a: 1
%TAG ! tag:x,2000:⏎---⏎a: !b 1 ¦ %YAML 1.1 ¦ a: 1⏎%YAML 1.1 ¦ # c⏎⏎---⏎a: 1 ¦ ␠␠a: 1⏎b: 2 ¦ ␠␠a: 1⏎  b: 2
␠␠a: 1⏎b: 2⏎c: [ ¦ a: 1⏎ b: 2 ¦ a:⏎  b: 1⏎ c: 2 ¦ a:⏎    b: 1⏎  c: 2 ¦ a:⏎b: 1 ¦ a:⏎- 1⏎- 2 ¦ a:⏎ - 1⏎- 2 ¦ a:⏎-1
a:⏎  -⏎  - 1 ¦ - 1 ¦ 1 ¦ ~ ¦ null ¦ {} ¦ "" ¦ !!map ¦ {a: 1} ¦ {a: 1}⏎b: 2 ¦ {a: 1} b ¦ a: b: c ¦ a:1 ¦ a : 1 ¦ a:⇥1
⇥a: 1 ¦ a:⏎⇥b: 1 ¦ a: 1⇥# c ¦ a:⏎  b: 1⏎⇥⏎  c: 2 ¦ a: 1⏎⇥ ¦ a: {⏎⇥b: 1⏎} ¦ a: 1⏎a: 2 ¦ a: {b: 1, b: 2} ¦ 1: x⏎'1': x
yes: 1⏎true: 2 ¦ yes: 1⏎'true': 1 ¦ 0x1: a⏎1: b ¦ a: &x 1⏎b: *x ¦ a: &x {b: 1}⏎c: *x ¦ a: &x {b: 1}⏎c: [*x, *x]
b: *x⏎a: &x 1 ¦ a: &x {b: *x} ¦ a: &x {b: {<<: *x}} ¦ a: &x 1⏎b: &x 2⏎c: *x ¦ a: &x 1⏎b: {c: &x 2}⏎d: *x
&x a: 1⏎b: *x ¦ &x a: 1⏎*x : 2 ¦ &x {a: 1} ¦ a: &x⏎b: *x ¦ a: &x-y_z 1⏎b: *x-y_z ¦ a: & 1 ¦ a: &x *x
x: &x {a: 1, b: 2}⏎w: {<<: *x, b: 3} ¦ x: &x {a: 1, b: 2}⏎w: {b: 3, <<: *x}
x: &x {m: {a: 1}}⏎w: {<<: *x, m: {b: 2}} ¦ x: &x {a: 1}⏎z: &z {a: 2, b: 2}⏎w: {<<: [*x, *z]}
x: &x {a: 1}⏎w: {<<: [*x, {a: 2, b: 2}], c: 3} ¦ x: &x [{a: 1}]⏎w: {<<: *x} ¦ x: &x {a: ~}⏎w: {a: 1, <<: *x}
x: &x {<<: {a: 1}, b: 1}⏎w: {<<: *x} ¦ w: {<<: &z {a: 1}, b: *z} ¦ <<: {a: 1}⏎<<: {b: 2} ¦ a: 1⏎<<: {a: 2}
<<: {a: 2}⏎a: 1 ¦ <<: 1 ¦ <<: ¦ <<: [] ¦ <<: [[{a: 1}]] ¦ <<: !!map {a: 1} ¦ <<: !!null {a: 1} ¦ <<: {~: 1}
'<<': {a: 1} ¦ !!merge <<: {a: 1} ¦ !!str <<: {a: 1} ¦ a: [<<: {b: 1}] ¦ a: |⏎  x⏎  y⏎ ¦ a: |⏎  x⏎  y ¦ a: |+⏎  x⏎⏎⏎
a: |+⏎  x⏎⏎⏎b: 1 ¦ a: |-⏎  x⏎⏎ ¦ a: |2⏎    x ¦ a: |1-⏎  x ¦ a: |3⏎  x ¦ a: |9⏎ ¦ a: | # c⏎  x ¦ a: |# c⏎  x ¦ a: |⏎⏎
a: | ¦ a: |⏎x ¦ a: |⏎⇥x ¦ a: |⏎ ⇥x ¦ a: |⏎  x⏎ y ¦ a: |⏎    ⏎  x ¦ a: |⏎  x⏎# c⏎b: 1 ¦ a: |⏎  x⏎  # c⏎
a: >⏎  x⏎  y⏎⏎  z ¦ a: >⏎  x⏎    y⏎  z ¦ a: >-⏎  x⏎⏎ ¦ a: >+⏎  x⏎⏎ ¦ a: >⏎⏎  x ¦ a: x⏎  y⏎⏎  z ¦ a: x⏎y
a: x⏎  y: z ¦ a: x # c⏎  y ¦ a: x⏎  # c⏎  y ¦ a: "x⏎  y\⏎  z\n" ¦ a: "x⏎y" ¦ a: "x  ⏎⏎  y" ¦ a: "x⏎# no⏎y" ¦ a⏎b: 1
"a⏎b": 1 ¦ ? a⏎: b⏎? c ¦ ? a⏎  b⏎: 1 ¦ ? "a⏎  b"⏎: 1 ¦ ? [a]⏎: 1 ¦ ? - a⏎: - b ¦ : 1 ¦ ? ¦ a: [1,⏎2] ¦ a: [⏎1⏎]
a: {b: 1⏎  , c: 2} ¦ a: [1, # c⏎  2] ¦ a: [1#c⏎  ] ¦ a: {b:⏎  c} ¦ a: {x y: z, p⏎  q: r} ¦ a: [a b, c⏎  d]
a: !!str⏎  b ¦ a: &x⏎  b: 1 ¦ #c⏎a: 1 #d⏎#e ¦ - a: 1⏎  b: 2⏎-  c ¦ a: 1␍⏎b: |␍⏎  x␍⏎  y␍⏎ ¦ ---␍⏎a: 1␍⏎---␍⏎b: 2
a: "x␍⏎  y" ¦ a: 1␍b: 2 ¦ a: "x␍y" ¦ a: |⏎  x␍  y ¦ a: 1␍---␍b: 2 ¦ 🅱a: 1 ¦ 🅱---⏎a: 1 ¦ a: 1⏎🅱b: 2 ¦ a: 🅱1
a: 1⏎---⏎🅱b: 2 ¦ a: x‹85›b: 2 ¦ a: x‹2028›b: 2 ¦ a: x‹2029›  y ¦ a: "x‹2028›y" ¦ a: |⏎  x‹2028›  y ¦ # c‹85›a: 1
‹a0›a: 1 ¦ a: x‹a0› ¦ a: ‹1› ¦ a: "‹7›" ¦ a: ‹7f› ¦ # ‹1b› ¦ a: ‹0› ¦ a: ‹81› ¦ a: ‹fffe› ¦ a: ‹fffd› ¦ a: ‹e000›
"#;

/// A schema and, after it, values files for it. `@7` stands for the `$schema` of draft 7.
const SCHEMAS: &str = r##"
{"properties":{"a":{"type":"integer"}}} ¦ a: 1 ¦ a: 1.0 ¦ a: 1.5 ¦ a: "1" ¦ a: 1e3 ¦ a: 1e400 ¦ a: 9007199254740993 ¦ a: ~ ¦ b: 1
{@4,"properties":{"a":{"type":"integer"}}} ¦ a: 1 ¦ a: 1.0
{"properties":{"a":{"type":["string","null"]}}} ¦ a: ~ ¦ a: yes ¦ a: 0x ¦ a: !!binary gA== ¦ a: 2001-12-14
{"properties":{"a":{"type":"number"}}} ¦ a: .5 ¦ a: true ¦ a: 1_0.5 ¦ a: 0o7
{"properties":{"a":{"enum":[1,"x",null,{"b":[1.0]}]}}} ¦ a: 1.0 ¦ a: x ¦ a: ~ ¦ a: {b: [1]} ¦ a: {b: [1], c: 1} ¦ a: "1"
{"properties":{"a":{"const":1e2}}} ¦ a: 100 ¦ a: 101
{"properties":{"a":{"const":0.1}}} ¦ a: 0.1 ¦ a: 0.10000000000000001
{"properties":{"a":{"const":9007199254740993}}} ¦ a: 9007199254740993 ¦ a: 9007199254740992
{@4,"properties":{"a":{"const":1}}} ¦ a: 2
{"required":["a"]} ¦ a: ~ ¦ b: 1 ¦ a: {}
{@4,"required":[]} ¦ a: 1
{"properties":{"a":{"required":["b"]}}} ¦ a: {b: ~} ¦ a: 1 ¦ a: {c: 1}
{"properties":{"a":{}},"additionalProperties":false} ¦ a: 1 ¦ b: 1 ¦ b: ~ ¦ {}
{"additionalProperties":{"type":"string"},"patternProperties":{"^n":{"type":"number"}}} ¦ nn: 1 ¦ nn: x ¦ m: x ¦ m: 1
{"propertyNames":{"maxLength":2}} ¦ ab: 1 ¦ abc: 1 ¦ äöü: 1 ¦ äö: 1 ¦ 100: 1
{@4,"propertyNames":{"maxLength":2}} ¦ abc: 1
{"properties":{"a":{"anyOf":[{"type":"string"},{"minimum":3}]}}} ¦ a: x ¦ a: 3 ¦ a: 2
{"properties":{"a":{"oneOf":[{"type":"number"},{"minimum":3}]}}} ¦ a: 2 ¦ a: 3 ¦ a: x
{"properties":{"a":{"allOf":[{"type":"number"},{"not":{"const":3}}]}}} ¦ a: 2 ¦ a: 3
{"if":{"required":["a"]},"then":{"required":["b"]},"else":{"required":["c"]}} ¦ {a: 1, b: 1} ¦ {a: 1, c: 1} ¦ c: 1 ¦ b: 1
{@6,"if":{"required":["a"]},"then":{"required":["b"]}} ¦ a: 1
{"$ref":"#/definitions/x","definitions":{"x":{"required":["a"]}}} ¦ a: 1 ¦ b: 1
{@7,"$ref":"#/definitions/x","required":["b"],"definitions":{"x":{"required":["a"]}}} ¦ a: 1 ¦ b: 1 ¦ {a: 1, b: 1}
{@19,"$ref":"#/$defs/x","required":["b"],"$defs":{"x":{"required":["a"]}}} ¦ a: 1 ¦ {a: 1, b: 1}
{"$defs":{"x":{"$anchor":"y","type":"string"}},"properties":{"a":{"$ref":"#y"}}} ¦ a: x ¦ a: 1
{"$id":"https://example.org/s","$defs":{"x":{"$id":"x","type":"string"}},"properties":{"a":{"$ref":"x"}}} ¦ a: x ¦ a: 1
{@7,"definitions":{"x":{"$id":"#y","type":"string"}},"properties":{"a":{"$ref":"#y"}}} ¦ a: x ¦ a: 1
{"properties":{"a":{"$ref":"#"}},"additionalProperties":false} ¦ a: {a: {}} ¦ a: {a: {b: 1}}
{"properties":{"a":{"$ref":"#/properties/b%20c"},"b c":{"type":"string"}}} ¦ a: x ¦ a: 1
{"properties":{"a":{"$dynamicRef":"#n"}},"$defs":{"n":{"$dynamicAnchor":"n","type":"string"}}} ¦ a: x ¦ a: 1
{"dependencies":{"a":["b"]}} ¦ a: 1 ¦ {a: 1, b: 1}
{@7,"dependencies":{"a":["b"],"c":{"required":["d"]}}} ¦ a: 1 ¦ {a: 1, b: 1} ¦ c: 1 ¦ {c: 1, d: 1}
{"dependentRequired":{"a":["b"]},"dependentSchemas":{"c":{"required":["d"]}}} ¦ a: 1 ¦ c: 1 ¦ {c: 1, d: 1}
{@7,"dependentRequired":{"a":["b"]}} ¦ a: 1
{"properties":{"a":{"minItems":1,"maxItems":2,"uniqueItems":true}}} ¦ a: [] ¦ a: [1] ¦ a: [1, 1.0] ¦ a: [1, 2, 3] ¦ a: [{b: 1}, {b: 1}] ¦ a: [1, true]
{"properties":{"a":{"prefixItems":[{"type":"string"}],"items":{"type":"number"}}}} ¦ a: [x, 1] ¦ a: [x, x] ¦ a: [1]
{@7,"properties":{"a":{"items":[{"type":"string"}],"additionalItems":false}}} ¦ a: [x] ¦ a: [x, 1] ¦ a: [1]
{"properties":{"a":{"contains":{"const":1},"minContains":2}}} ¦ a: [1] ¦ a: [1, 1] ¦ a: []
{@7,"properties":{"a":{"contains":{"const":1},"minContains":2}}} ¦ a: [1] ¦ a: []
{"properties":{"a":{"minProperties":1,"maxProperties":1}}} ¦ a: {} ¦ a: {b: 1} ¦ a: {b: 1, c: 1}
{"properties":{"a":{"minLength":2,"maxLength":3}}} ¦ a: é ¦ a: éé ¦ a: 😀😀😀 ¦ a: 😀😀😀😀 ¦ a: é́
{"properties":{"a":{"multipleOf":0.01}}} ¦ a: 19.99 ¦ a: 0.015 ¦ a: 1e20 ¦ a: 4.35
{"properties":{"a":{"multipleOf":3}}} ¦ a: 9007199254740993 ¦ a: -6 ¦ a: 0
{@4,"properties":{"a":{"minimum":1,"exclusiveMinimum":true}}} ¦ a: 1 ¦ a: 2
{@7,"properties":{"a":{"exclusiveMinimum":1}}} ¦ a: 1 ¦ a: 1.0000001
{@7,"properties":{"a":{"minimum":1,"exclusiveMinimum":true}}} ¦ a: 2
{@4,"properties":{"a":{"exclusiveMinimum":1}}} ¦ a: 2
{"properties":{"a":{"pattern":"^[a-z]+$"}}} ¦ a: ab ¦ a: aB ¦ a: 1 ¦ a: "ab\n"
{"properties":{"a":{"pattern":"(?!x)"}}} ¦ a: x ¦ b: 1
{"properties":{"a":{"pattern":"(a)\\1"}}} ¦ a: aa
{"properties":{"a":{"pattern":"a{1001}"}}} ¦ a: x
{"patternProperties":{"(?=x)":{}}} ¦ b: 1
{"properties":{"a":{"pattern":"^\\d\\w\\s$"}}} ¦ a: "1a " ¦ a: "١a " ¦ a: "1é " ¦ a: "1a\u00a0"
{"properties":{"a":{"pattern":"^\\p{L}$"}}} ¦ a: é ¦ a: "1"
{"properties":{"a":{"pattern":"^\\p{Letter}$"}}} ¦ a: é
{"properties":{"a":{"pattern":"\\cJ"}}} ¦ a: x
{"properties":{"a":{"pattern":"^\\x41\\u0042$"}}} ¦ a: AB
{"properties":{"a":{"pattern":"^a\\/b\\-c$"}}} ¦ a: a/b-c ¦ a: x
{"properties":{"a":{"pattern":"^\\Qa.b\\E\\z"}}} ¦ a: a.b ¦ a: axb
{"properties":{"a":{"pattern":"(?<n>a)(?P<m>b)"}}} ¦ a: ab ¦ a: b
{"properties":{"a":{"pattern":"^[[:alpha:]]$"}}} ¦ a: a ¦ a: ":"
{"properties":{"a":{"pattern":"^[a&&b]$"}}} ¦ a: a ¦ a: "&" ¦ a: b
{"properties":{"a":{"pattern":"^[[a]$"}}} ¦ a: "[" ¦ a: b
{"properties":{"a":{"pattern":"^a{,2}$"}}} ¦ a: aa ¦ a: "a{,2}"
{"properties":{"a":{"pattern":"^.$"}}} ¦ a: "\r" ¦ a: "\n" ¦ a: "\u2028"
{@7,"properties":{"a":{"contentEncoding":"base64","contentMediaType":"application/json"}}} ¦ a: "%" ¦ a: aGk=
{"properties":{"a":true,"b":false}} ¦ a: 1 ¦ b: 1
{@4,"properties":{"b":false}} ¦ a: 1
{"properties":{"a":{"unevaluatedProperties":false,"allOf":[{"properties":{"b":{}}}]}}} ¦ a: {b: 1} ¦ a: {c: 1}
{"properties":{"a":{"type":5}}} ¦ b: 1
{"properties":{"a":{"type":"int"}}} ¦ b: 1
{"required":"a"} ¦ a: 1
{"required":["a","a"]} ¦ a: 1
{"enum":[]} ¦ a: 1
{@7,"enum":[]} ¦ a: 1
{"properties":{"a":{"enum":[1,1]}}} ¦ a: 1
{"minLength":1.0} ¦ a: 1
{"multipleOf":0} ¦ a: 1
{"anyOf":[]} ¦ a: 1
{"$ref":"#/nowhere"} ¦ a: 1
{"properties":{"a":{"$ref":"nowhere.json"}}} ¦ b: 1
{"properties":{"a":{"$ref":"#/properties/b"}}} ¦ b: 1
{"properties":{"a":{"$ref":"urn:x:y"}}} ¦ a: 1
{"$schema":"http://json-schema.org/draft-07/schema"} ¦ a: 1
{"$schema":"https://json-schema.org/draft-07/schema#"} ¦ a: 1
{"$schema":"http://json-schema.org/schema#"} ¦ a: 1
{"$schema":""} ¦ a: 1
{"$id":"#x"} ¦ a: 1
{"$defs":{"x":{"$id":"https://example.org/x"},"y":{"$id":"https://example.org/x"}}} ¦ a: 1
{"$id":"https://example.org/s","$defs":{"x":{"$id":"s"}}} ¦ a: 1
{@7,"$id":"https://example.org/s","definitions":{"x":{"$id":"s","$ref":"#"}}} ¦ a: 1
{"$defs":{"x":{"$anchor":"y"},"z":{"$anchor":"y"}}} ¦ a: 1
{"$defs":{"x":{"$anchor":"y","$dynamicAnchor":"y"}}} ¦ a: 1
{"$defs":{"x":{"$anchor":"y"},"z":{"$id":"z","$anchor":"y"}}} ¦ a: 1
{@7,"definitions":{"x":{"$id":"#y"},"z":{"$id":"#y"}}} ¦ a: 1
{@4,"definitions":{"x":{"id":"#y"},"z":{"id":"#y"}}} ¦ a: 1
{@4,"enum":[]} ¦ a: 1
{@6,"properties":{"a":{"enum":[1,2,1]}}} ¦ a: 1
{"$ref":"#"} ¦ a: 1
{"properties":{"a":{"$ref":"#/properties/a"}}} ¦ a: 1 ¦ b: 1
{"properties":{"a":{"allOf":[{"$ref":"#/properties/a"}]}}} ¦ a: 1 ¦ b: 1
{"properties":{"a":{"anyOf":[{"$ref":"#/properties/a"},{"type":"string"}]}}} ¦ a: 1 ¦ a: x
{"$defs":{"x":{"$ref":"#/$defs/y"},"y":{"anyOf":[{"$ref":"#/$defs/x"},{"type":"string"}]}},"properties":{"a":{"$ref":"#/$defs/x"}}} ¦ a: 1 ¦ a: x
{"properties":{"a":{"not":{"$ref":"#/properties/a"}}}} ¦ a: 1
{@7,"properties":{"a":{"$ref":"#/properties/a","type":"string"}}} ¦ a: 1 ¦ a: x ¦ b: 1
{"properties":{"a":{"$ref":"#/$defs/a~2b"}},"$defs":{"a~2b":{}}} ¦ a: 1
{"properties":{"a":{"$ref":"#/$defs/a~0b"}},"$defs":{"a~b":{"type":"string"}}} ¦ a: 1 ¦ a: x
{"properties":{"a":{"$ref":"#/$defs/a b"}},"$defs":{"a b":{"type":"string"}}} ¦ a: 1 ¦ a: x
{"properties":{"a":{"$recursiveRef":"#"}},"required":["b"]} ¦ b: 1 ¦ {a: {}, b: 1} ¦ {a: {b: 1}, b: 1}
{@19,"properties":{"a":{"$recursiveRef":"#"}},"required":["b"]} ¦ b: 1 ¦ {a: {}, b: 1} ¦ {a: {b: 1}, b: 1}
{"properties":{"a":{"$schema":"http://json-schema.org/draft-04/schema#","exclusiveMinimum":1}}} ¦ a: 1 ¦ a: 2
{@4,"properties":{"a":{"minLength":1.0}}} ¦ a: x ¦ a: ""
{@7,"properties":{"a":{"pattern":"\bx\b"}}} ¦ a: a x ¦ a: ax
{"properties":{"a":{"pattern":"\bx\b"}}} ¦ a: éx ¦ a: ax
{@7,"properties":{"a":{"pattern":"^\Bx"}}} ¦ a: x
{@7,"patternProperties":{"\bx":{"type":"string"},"x":{"minLength":2}}} ¦ x: 1 ¦ x: a ¦ x: ab
{"patternProperties":{"\d":{"type":"string"},"[0-9]":{"minLength":2}}} ¦ a1: 1 ¦ a1: a ¦ a1: ab
{"title":5} ¦ a: 1
{"default":5,"unknown":{"type":5}} ¦ a: 1
{"$defs":{"x":{"type":5}}} ¦ a: 1
{"definitions":{"x":{"type":5}}} ¦ a: 1
{"properties":{"a":{"format":5}}} ¦ b: 1
{"properties":{"a":{"format":"unknown"}}} ¦ a: 1
{"a":1,} ¦ a: 1
{"required":["a"]} x ¦ a: 1
{"required":["b"],"required":["a"]} ¦ a: 1 ¦ b: 1
🅱{"required":["a"]} ¦ a: 1 ¦ b: 1
{"a":NaN} ¦ a: 1
{} ¦ a: 1
true ¦ a: 1
false ¦ {}
null ¦ a: 1
 ¦ a: 1
"##;

/// A format and, after it, strings, each for a draft that checks formats and for one that doesn't.
const FORMATS: &str = r#"
date ¦ 2024-02-29 ¦ 2023-02-29 ¦ 24-02-01
date-time ¦ 2024-01-01T00:00:00Z ¦ 2024-01-01 00:00:00Z ¦ 1998-12-31T23:59:60Z ¦ 2024-01-01T00:00:00
time ¦ 12:00:00Z ¦ 12:00:00 ¦ 24:00:00Z
duration ¦ P1DT2H ¦ P1D2H ¦ PT ¦ P1W
email ¦ a@example.org ¦ a ¦ a@localhost ¦ "a b"@example.org
hostname ¦ a.example.org ¦ a_b ¦ -a ¦ a..b
ipv4 ¦ 10.0.0.1 ¦ 10.0.0 ¦ 010.0.0.1 ¦ 256.0.0.1
ipv6 ¦ ::1 ¦ :1 ¦ fe80::1%eth0
uri ¦ https://example.org/x ¦ /x ¦ https://example.org/a b
uri-reference ¦ /x ¦ \x
uri-template ¦ /x/{y} ¦ /x/{y
uuid ¦ 2eb8aa08-aa98-11ea-b4aa-73b441d16380 ¦ 2eb8aa08
json-pointer ¦ /a/b ¦ a/b ¦ /a~2
relative-json-pointer ¦ 1/a ¦ /a
regex ¦ a+ ¦ a( ¦ (?=a)
semver ¦ 1.2.3 ¦ 1.2
period ¦ 2024-01-01T00:00:00Z/P1D ¦ x
"#;

/// Charts, each with a title and, after it, its files: what is in one stands after `|`. Values files are numbers; each `1`
/// is a case of its own. A chart without schemas gets those of what helm computes.
const CHARTS: &str = r#"
# nulls in one chart: over defaults, over nothing, below nothing, in lists
values.yaml | {a: 1, b: {c: 1, d: {e: 1}}, f: ~, g: {h: ~}, l: [~, {m: ~}]}
1 | {a: ~, b: {c: ~, d: ~, x: ~}, f: ~, g: {h: ~, i: ~}, nil: ~, o: {p: ~, q: {r: ~}}, l: [~]}
# nulls against maps and scalars
values.yaml | {a: {b: 1}, c: 1, d: {e: {f: 1}}, g: ~, h: {i: ~}}
1 | {a: ~, c: {x: ~}, d: {e: {f: ~, g: ~}}, g: {x: 1}, h: {i: {j: ~}}}
# a null, then a value, in two files
values.yaml | {a: {b: 1, c: 2}, d: 1} ¦ 1 | {a: ~, d: ~, e: ~} ¦ 2 | {a: {b: 3}, d: 2, e: {f: ~}}
# a value, then a null, then a value
values.yaml | {a: {b: 1, c: 2}} ¦ 1 | {a: {b: 3, x: 1}} ¦ 2 | {a: {b: ~, x: ~}} ¦ 3 | {a: {c: {why: ~}}}
# maps over scalars and scalars over maps
values.yaml | {a: {b: 1}, c: 1, d: [1, 2], e: {f: {g: 1}}, h: ~, i: {}}
1 | {a: 1, c: {x: 1}, d: {why: 1}, e: {f: []}, h: {j: 1}, i: ~}
# empty files and empty maps
values.yaml | # nothing ¦ 1 | {a: {}} ¦ 2 | # nothing
# a map over a map that another file took away
values.yaml | {a: {b: {c: 1}}} ¦ 1 | {a: {b: ~}} ¦ 2 | {a: {b: {}}}
# defaults with two documents, a duplicate and a BOM
values.yaml | 🅱a: 1⏎a: 2⏎---⏎b: {c: 1}⏎---⏎b: {d: ~} ¦ 1 | {a: 3}
# defaults with CRLF
values.yaml | a: 1␍⏎b:␍⏎  c: |␍⏎    x␍⏎ ¦ 1 | {}
# defaults that are a list
values.yaml | [1] ¦ 1 | {}
# defaults that are no YAML
values.yaml | a: [ ¦ 1 | {}
# defaults with infinity
values.yaml | a: .inf ¦ 1 | {}
# no defaults at all
1 | {a: {b: ~}}
# defaults of a subchart that are no YAML
charts/sub/values.yaml | a: "\/" ¦ 1 | {}
# defaults of a disabled subchart that are no YAML
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, condition: live}] ¦ charts/sub/values.yaml | a: !!int x
1 | {live: false}
# a subchart that helm doesn't look at
charts/_sub/values.yaml | a: [ ¦ charts/.sub/values.yaml | a: [ ¦ values.yaml | {_sub: {a: ~}} ¦ 1 | {}
# defaults that .helmignore keeps from helm
.helmignore | values.yaml⏎ ¦ values.yaml | {a: [} ¦ 1 | {b: ~}
# a subchart that .helmignore keeps from helm
.helmignore | charts/sub⏎ ¦ charts/sub/values.yaml | {a: 1} ¦ 1 | {sub: 1}
# a subchart's own defaults, with nulls from everybody
Chart.yaml | dependencies: [{name: sub, version: 0.1.0}] ¦ values.yaml | {sub: {a: ~, b: {c: ~}, d: 1, nil: ~}}
charts/sub/values.yaml | {a: 1, b: {c: 1, x: 1}, d: 2, e: ~, f: {g: ~, h: 1}, i: {j: 1}}
1 | {sub: {d: ~, e: ~, f: {h: ~}, i: ~, z: ~}}
# a null for a whole subchart
Chart.yaml | dependencies: [{name: sub, version: 0.1.0}] ¦ values.yaml | {sub: {a: 2}}
charts/sub/values.yaml | {a: 1} ¦ 1 | {sub: ~}
# a null for a subchart that has no defaults in the parent
charts/sub/values.yaml | {a: 1} ¦ 1 | {sub: ~}
# a null for a subchart in the parent's defaults
charts/sub/values.yaml | {a: 1} ¦ values.yaml | {sub: ~} ¦ 1 | {}
# a null for a subchart in the parent's defaults, a map in a file
charts/sub/values.yaml | {a: 1, b: {c: 1}} ¦ values.yaml | {sub: ~} ¦ 1 | {sub: {b: {d: ~}}}
# a scalar for a listed subchart
Chart.yaml | dependencies: [{name: sub, version: 0.1.0}] ¦ charts/sub/values.yaml | {a: 1} ¦ 1 | {sub: 1}
# a list for a subchart that isn't listed
charts/sub/values.yaml | {a: 1} ¦ 1 | {sub: []}
# a scalar for a subchart in the parent's defaults
charts/sub/values.yaml | {a: 1} ¦ values.yaml | {sub: x} ¦ 1 | {}
# a map for a subchart over the scalar of the parent's defaults
charts/sub/values.yaml | {a: 1} ¦ values.yaml | {sub: x} ¦ 1 | {sub: {b: 1}}
# a scalar for a disabled subchart
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, condition: live}] ¦ charts/sub/values.yaml | {a: 1}
1 | {live: false, sub: 1}
# a scalar for a subchart's subchart
charts/sub/values.yaml | {a: 1} ¦ charts/sub/charts/deep/values.yaml | {a: 1} ¦ 1 | {sub: {deep: 1}}
# a scalar for the name behind an alias
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, alias: one}] ¦ charts/sub/values.yaml | {a: 1}
1 | {sub: 1, one: {b: 1}}
# a scalar for an alias
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, alias: one}] ¦ charts/sub/values.yaml | {a: 1}
1 | {one: false}
# one chart under two aliases and its own name
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, alias: one}, {name: sub, version: 0.1.0}, {name: sub, version: ">=0.1.0", alias: two}]
values.yaml | {one: {a: 2, b: ~}, two: {b: {c: ~}}}
charts/sub/values.yaml | {a: 1, b: {c: 1, d: ~}, global: {g: 1}} ¦ 1 | {one: {x: ~}, two: ~, sub: {a: ~}}
# one chart under two aliases, one disabled
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, alias: one, condition: one.live}, {name: sub, version: 0.1.0, alias: two, condition: two.live}]
charts/sub/values.yaml | {live: true, a: {b: 1}} ¦ 1 | {one: {live: false}, two: {a: {b: ~}}}
# an alias without a version
Chart.yaml | dependencies: [{name: sub, alias: one}] ¦ charts/sub/values.yaml | {a: 1}
1 | {one: {b: 1}, sub: {c: 1}}
# conditions: the first bool counts
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, condition: "x.why,sub.word,sub.dead,sub.live"}]
charts/sub/values.yaml | {word: "false", dead: false, live: true, a: 1} ¦ 1 | {}
# a condition by a default of the subchart
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, condition: sub.live}]
charts/sub/values.yaml | {live: false, a: 1} ¦ 1 | {sub: {b: ~}}
# a condition by a default of the subchart that a null takes away
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, condition: sub.live}]
charts/sub/values.yaml | {live: false, a: 1} ¦ 1 | {sub: {live: ~}}
# conditions with spaces, and one that is a map
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, condition: "a, b ,c"}] ¦ charts/sub/values.yaml | {a: 1}
1 | {a: {x: 1}, b: false, c: ~}
# an empty condition, then a false one
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, condition: ",dead"}] ¦ charts/sub/values.yaml | {a: 1}
1 | {dead: no}
# a condition of an aliased chart by its own name
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, alias: one, condition: sub.live}]
charts/sub/values.yaml | {live: false, a: 1} ¦ 1 | {one: {live: false}}
# tags, and a condition over them
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, tags: [front]}, {name: other, version: 0.1.0, tags: [front, back], condition: other.live}, {name: third, version: 0.1.0, tags: [front, back, x]}]
values.yaml | {tags: {front: false, x: "true"}} ¦ charts/sub/values.yaml | {a: 1}
charts/other/values.yaml | {a: 1, live: true} ¦ charts/third/values.yaml | {a: 1} ¦ 1 | {tags: {back: ~}}
# tags that are a list, and below the chart
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, tags: [front]}]
charts/sub/values.yaml | {a: 1, tags: {front: false}} ¦ 1 | {tags: [front]}
# a tag of a subchart's subchart
charts/sub/Chart.yaml | dependencies: [{name: deep, version: 0.1.0, tags: [front], condition: deep.live}]
Chart.yaml | dependencies: [{name: sub, version: 0.1.0}] ¦ charts/sub/values.yaml | {tags: {front: true}}
charts/sub/charts/deep/values.yaml | {a: 1} ¦ 1 | {tags: {front: false}}
# a listed subchart's subchart with a condition
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, alias: one}]
charts/sub/Chart.yaml | dependencies: [{name: deep, version: 0.1.0, condition: deep.live}]
charts/sub/charts/deep/values.yaml | {a: 1, live: true} ¦ 1 | {one: {deep: {live: false}}}
# an unlisted subchart's subchart with a condition
charts/sub/Chart.yaml | dependencies: [{name: deep, version: 0.1.0, condition: deep.live}]
charts/sub/charts/deep/values.yaml | {a: 1, live: true} ¦ 1 | {sub: {deep: {live: false}}}
# an unlisted subchart's subchart with a condition, beside a listed one
Chart.yaml | dependencies: [{name: other, version: 0.1.0}] ¦ charts/other/values.yaml | {}
charts/sub/Chart.yaml | dependencies: [{name: deep, version: 0.1.0, condition: deep.live}]
charts/sub/charts/deep/values.yaml | {a: 1, live: true} ¦ 1 | {sub: {deep: {live: false}}}
# globals from all sides
Chart.yaml | dependencies: [{name: sub, version: 0.1.0}]
values.yaml | {global: {a: 1, m: {x: 1}, nil: ~, o: {p: ~}}, sub: {global: {a: 2, m: {why: 2}}}}
charts/sub/values.yaml | {global: {a: 3, b: 3, m: {x: 3, z: 3}, nil: 3, o: {p: 3}, q: ~}}
1 | {global: {c: ~, m: {w: ~}}, sub: {global: {d: ~, b: ~, m: {z: ~}}}}
# globals that are no maps
Chart.yaml | dependencies: [{name: sub, version: 0.1.0}] ¦ values.yaml | {sub: {global: {a: 1}}}
charts/sub/values.yaml | {global: {b: 1}} ¦ 1 | {global: 1}
# a subchart's global that is no map
charts/sub/values.yaml | {global: x, a: 1} ¦ 1 | {global: {b: 1}}
# a null for global, and for a subchart's
charts/sub/values.yaml | {global: {c: 1}, a: 1} ¦ values.yaml | {global: {b: 1}}
1 | {global: ~, sub: {global: ~}}
# a map in globals against a scalar, and the other way round
charts/sub/values.yaml | {global: {a: {b: 1}, c: 1}}
1 | {global: {a: 1, c: {d: 1}}, sub: {global: {a: {e: 1}, c: 2}}}
# deep globals that charts share
Chart.yaml | dependencies: [{name: sub, version: 0.1.0}, {name: other, version: 0.1.0}]
values.yaml | {global: {a: {b: {c: 1}}}} ¦ charts/sub/values.yaml | {global: {a: {b: {d: 2, nil: ~}, x: 1}}}
charts/other/values.yaml | {global: {a: {b: {e: 3}, why: {z: 1}}}}
1 | {global: {a: {b: {f: ~}}}, other: {global: {a: {b: {g: 1}}}}}
# import-values by names
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, import-values: [data, more, nothing]}]
values.yaml | {a: 1, nil: ~, m: {x: ~}}
charts/sub/values.yaml | {exports: {data: {a: 2, b: 2, c: ~, m: {x: 1, why: 1}}, more: {b: 3, d: 3, nil: 1, e: {f: ~}}}}
1 | {b: ~, e: {g: ~}}
# import-values by child and parent
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, import-values: [{child: from, parent: to.here}, {child: from.in, parent: .}, {child: word, parent: x}]}]
values.yaml | {to: {here: {a: 1}}} ¦ charts/sub/values.yaml | {from: {a: 2, b: 2, in: {c: 2, d: ~}}, word: x}
1 | {sub: {from: {b: 3, e: 3}}, c: ~}
# import-values of an alias and of its twin
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, alias: one, import-values: [data]}, {name: sub, version: 0.1.0, alias: two, import-values: [{child: exports.data, parent: second}]}]
values.yaml | {one: {exports: {data: {a: 2}}}, two: {exports: {data: {b: ~}}}}
charts/sub/values.yaml | {exports: {data: {a: 1, b: {c: 1}}}} ¦ 1 | {second: {b: {d: ~}}}
# import-values of a disabled chart
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, condition: sub.live, import-values: [data]}]
charts/sub/values.yaml | {live: true, exports: {data: {a: 1}}} ¦ 1 | {sub: {live: false}}
# import-values through two levels
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, import-values: [data, {child: up, parent: top}]}]
charts/sub/Chart.yaml | dependencies: [{name: deep, version: 0.1.0, import-values: [{child: from, parent: exports.data}, {child: from, parent: up}]}]
charts/sub/values.yaml | {a: 1, exports: {data: {x: 1}}}
charts/sub/charts/deep/values.yaml | {from: {x: 2, why: 2, nil: ~, m: {o: ~}}} ¦ 1 | {top: {m: {p: 1}}}
# an import over a subchart's own key, and of globals
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, import-values: [{child: from, parent: sub}, {child: global, parent: got}]}]
values.yaml | {global: {a: 1}} ¦ charts/sub/values.yaml | {from: {x: 2}, x: 1, global: {b: 1}}
1 | {global: {c: 1}}
# a null in the parent's defaults over what is imported
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, import-values: [data]}]
values.yaml | {a: ~, m: ~, s: {t: ~}} ¦ charts/sub/values.yaml | {exports: {data: {a: 1, m: {b: 1}, s: {t: 1}}}}
1 | {m: {c: 1}}
# nulls in defaults, with import-values that find nothing
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, import-values: [nothing]}]
values.yaml | {a: ~, b: {c: ~}, sub: {x: ~, why: {z: ~}}} ¦ charts/sub/values.yaml | {x: 1, why: {z: 1}, nil: ~}
1 | {b: {d: 1}}
# requirements.yaml in a chart of the first version
Chart.yaml | apiVersion: v1
requirements.yaml | dependencies: [{name: sub, version: 0.1.0, alias: one, condition: one.live, import-values: [data]}]
charts/sub/values.yaml | {exports: {data: {b: 1}}, a: ~, c: 1} ¦ 1 | {one: {c: ~}}
# requirements.yaml in a chart of the second version
requirements.yaml | dependencies: [{name: sub, version: 0.1.0, condition: live}]
charts/sub/values.yaml | {a: 1} ¦ 1 | {live: false}
# dependencies in both places
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, condition: live}]
requirements.yaml | dependencies: [{name: sub, version: 0.1.0, alias: one}] ¦ charts/sub/values.yaml | {a: 1}
1 | {live: false}
# dependencies of a chart of the first version in Chart.yaml
Chart.yaml | apiVersion: v1⏎dependencies: [{name: sub, version: 0.1.0, condition: live}]
charts/sub/values.yaml | {a: 1} ¦ 1 | {live: false}
# a packaged subchart with one of its own
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, alias: one, import-values: [{child: deep, parent: up}]}]
charts/sub.tgz/Chart.yaml | dependencies: [{name: deep, version: 0.1.0, condition: deep.live}]
charts/sub.tgz/values.yaml | {a: 1, deep: {b: 2, nil: ~}}
charts/sub.tgz/charts/deep/values.yaml | {b: 1, c: 1, live: true, nil: 1} ¦ 1 | {one: {deep: {c: ~}}}
# an unlisted packaged subchart
charts/sub.tgz/values.yaml | {a: 1, b: {c: ~}} ¦ 1 | {sub: {a: ~}}
# a library
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, import-values: [data]}]
charts/sub/Chart.yaml | type: library ¦ charts/sub/values.yaml | {exports: {data: {a: 1}}, b: 1, global: {x: 1}}
1 | {sub: {b: ~}}
# three levels without lists
values.yaml | {sub: {deep: {a: ~, b: 1}}} ¦ charts/sub/values.yaml | {deep: {c: 1, d: ~}, global: {g: {h: 1}}}
charts/sub/charts/deep/values.yaml | {a: 1, c: 2, d: 2, e: {f: 1}} ¦ 1 | {sub: {deep: {e: ~, c: ~}}}
# a schema in the subchart alone: good, bad, and a null
charts/sub/values.schema.json | {"required":["a"],"properties":{"a":{"type":"integer"}}}
charts/sub/values.yaml | {a: 1} ¦ 1 | {sub: {a: 2}} ¦ 1 | {sub: {a: x}} ¦ 1 | {sub: {a: ~}} ¦ 1 | {sub: ~}
1 | {}
# a schema in a disabled subchart: disabled, enabled, and not a bool
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, condition: live}]
charts/sub/values.schema.json | {"properties":{"a":{"type":"integer"}}} ¦ 1 | {live: false, sub: {a: x}}
1 | {live: true, sub: {a: x}} ¦ 1 | {live: "false", sub: {a: x}}
# schemas of the parent see what the subcharts get
values.schema.json | {"properties":{"sub":{"required":["a","global"]},"global":false},"additionalProperties":false}
charts/sub/values.yaml | {a: 1} ¦ 1 | {} ¦ 1 | {sub: {a: ~}} ¦ 1 | {global: {}}
# a closed subchart
charts/sub/values.schema.json | {"properties":{"a":true},"additionalProperties":false} ¦ 1 | {sub: {a: 1}}
1 | {sub: {}}
# a closed subchart that knows of globals
charts/sub/values.schema.json | {"properties":{"a":true,"global":{"maxProperties":1}},"additionalProperties":false}
1 | {sub: {a: 1}} ¦ 1 | {global: {x: 1, why: 1}}
# one schema under two aliases
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, alias: one}, {name: sub, version: 0.1.0, alias: two}]
charts/sub/values.schema.json | {"properties":{"a":{"type":"integer"}}} ¦ 1 | {one: {a: 1}, two: {a: x}}
1 | {one: {a: x}, two: {a: 1}} ¦ 1 | {sub: {a: x}}
# schemas of a library and of a package
charts/lib/Chart.yaml | type: library ¦ charts/lib/values.schema.json | {"properties":{"a":{"type":"integer"}}}
charts/sub.tgz/values.schema.json | {"properties":{"a":{"type":"integer"}}} ¦ 1 | {lib: {a: x}}
1 | {sub: {a: x}} ¦ 1 | {sub: {a: 1}}
# a schema two deep, of defaults that are bad
charts/sub/charts/deep/values.schema.json | {"properties":{"a":{"type":"integer"}}}
charts/sub/charts/deep/values.yaml | {a: x} ¦ 1 | {} ¦ 1 | {sub: {deep: {a: 1}}} ¦ 1 | {sub: {deep: {a: ~}}}
# defaults that are bad, and a null default that isn't there
values.schema.json | {"properties":{"a":{"type":"integer"},"nil":{"type":"integer"},"m":{"properties":{"nil":false}}}}
values.yaml | {a: x, nil: ~, m: {nil: ~}} ¦ 1 | {} ¦ 1 | {a: 1} ¦ 1 | {a: ~} ¦ 1 | {a: 1, nil: ~}
1 | {a: 1, m: {nil: ~}}
# a broken schema in a disabled subchart
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, condition: live}]
charts/sub/values.schema.json | {"type":5} ¦ 1 | {live: false} ¦ 1 | {live: true}
# what is imported meets the schema
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, import-values: [data]}]
values.schema.json | {"properties":{"a":{"type":"integer"}}}
charts/sub/values.yaml | {exports: {data: {a: x}}} ¦ 1 | {} ¦ 1 | {a: 1} ¦ 1 | {sub: {exports: {data: {a: 1}}}}
# a schema that .helmignore keeps from helm
.helmignore | *.json⏎ ¦ values.schema.json | false ¦ 1 | {}
"#;

/// Charts like those, with `?` for a tree by chance that has maps of the names after it.
const LAYOUTS: &str = r#"
# one chart
values.yaml | ? ¦ 1 | ? ¦ 2 | ?
# a listed subchart
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, condition: "sub.live,live"}]
values.yaml | ? sub global live ¦ charts/sub/values.yaml | ? global live ¦ 1 | ? sub global live
2 | ? sub global
# a subchart that isn't listed, with one of its own
values.yaml | ? sub global ¦ charts/sub/values.yaml | ? deep global
charts/sub/charts/deep/values.yaml | ? global ¦ 1 | ? sub global
# two aliases and the name
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, alias: one}, {name: sub, version: 0.1.0, tags: [front]}, {name: sub, version: 0.1.0, alias: two, condition: two.live, tags: [front, back]}]
values.yaml | ? one two sub global tags ¦ charts/sub/values.yaml | ? global live ¦ 1 | ? one two sub tags
# imports, of two charts
Chart.yaml | dependencies: [{name: sub, version: 0.1.0, import-values: [a, {child: b, parent: c}]}, {name: other, version: 0.1.0, condition: other.live, import-values: [{child: a, parent: b.c}, {child: c, parent: .}]}]
values.yaml | ? sub other global ¦ charts/sub/values.yaml | ? exports global
charts/other/values.yaml | ? live global ¦ 1 | ? sub other global
# imports through two levels, packaged
Chart.yaml | apiVersion: v1
requirements.yaml | dependencies: [{name: sub, version: 0.1.0, alias: one, import-values: [a, {child: b, parent: b}]}]
values.yaml | ? one global
charts/sub.tgz/Chart.yaml | dependencies: [{name: deep, version: 0.1.0, condition: "deep.live", tags: [back], import-values: [{child: a, parent: exports.a}, {child: c, parent: b}]}]
charts/sub.tgz/values.yaml | ? exports deep global ¦ charts/sub.tgz/charts/deep/values.yaml | ? global live
1 | ? one tags
# subcharts that share globals
Chart.yaml | dependencies: [{name: sub, version: 0.1.0}, {name: other, version: 0.1.0}]
values.yaml | ? global sub ¦ charts/sub/values.yaml | ? global deep
charts/sub/charts/deep/values.yaml | ? global ¦ charts/other/values.yaml | ? global ¦ 1 | ? global other
"#;

/// Files of a chart by their paths, and values files by their numbers.
type Files = BTreeMap<String, Vec<u8>>;

struct Case {
    table: &'static str,
    files: Files,
    pinned: Pinned,
}

#[derive(Clone, Copy, PartialEq)]
enum Pinned {
    /// The chart has the schemas it came with.
    No,
    /// Its schemas are still to be made of what helm computes.
    Wanted,
    /// They are, and helm has to accept what it computed itself.
    Yes,
    /// They are, but for one value in one of them.
    Wrongly,
}

/// What helm printed, or what it said when it refused.
type Verdict = Result<String, String>;

#[test]
fn validate_refuses_what_helm_refuses() {
    let repo = Repo::new();
    let mut cases = cases();
    let computed = each(&cases.iter().enumerate().collect::<Vec<_>>(), |(number, case)| {
        case.write(&repo, *number);
        (case.pinned == Pinned::Wanted).then(|| helm(&repo, *number, &["--skip-schema-validation"]))
    });
    let mut known = BTreeMap::new();
    for (number, computed) in computed.into_iter().enumerate() {
        match computed {
            Some(Ok(output)) => known.extend(pin(&mut cases, number, &output)),
            // Refused without schemas, which these wouldn't change.
            Some(refused) => drop(known.insert(number, refused)),
            None => {}
        }
    }
    let numbered: Vec<_> = cases.iter().enumerate().collect();
    let with_new_schemas: Vec<_> = numbered.iter().filter(|it| it.1.pinned != Pinned::No).collect();
    each(&with_new_schemas, |(number, case)| case.write(&repo, *number));
    repo.write("config/clusters/lake/cluster.yaml", &cluster(&cases));
    let (ours, helms) = thread::scope(|scope| {
        let ours = scope.spawn(|| ours(&repo));
        let ask = |number: &usize| known.get(number).cloned().unwrap_or_else(|| helm(&repo, *number, &[]));
        let helms = each(&numbered, |(number, _)| ask(number).map(|_| ()));
        (ours.join().unwrap(), helms)
    });
    let differing: Vec<_> = (numbered.iter().zip(&helms))
        .filter_map(|((number, case), helm)| {
            let told = ours.get(number).map(Vec::as_slice).unwrap_or_default();
            let what = difference(case, helm, told)?;
            Some(format!(
                "== {what}: case {number}, of {}\n{}{helm:?}\nwe: {told:#?}",
                case.table,
                case.show()
            ))
        })
        .collect();
    assert!(cases.len() > 600 && helms.iter().filter(|it| it.is_err()).count() > 200);
    assert!(differing.is_empty(), "{}\n{} cases differ", differing.join("\n"), differing.len());
}

fn difference(case: &Case, helm: &Result<(), String>, told: &[Value]) -> Option<&'static str> {
    if case.pinned == Pinned::Yes && helm.is_err() {
        return Some("helm computes now this, now that");
    }
    let is_text = case.files.values().all(|it| str::from_utf8(it).is_ok());
    let stricter = |rule: &str| STRICTER.contains(&rule) || rule == "not-text" && !is_text;
    match helm {
        Err(_) if told.is_empty() => Some("helm refuses, we don't"),
        Ok(()) if !told.iter().all(|it| stricter(it["rule"].as_str().unwrap())) => {
            Some("we refuse, helm doesn't")
        }
        _ => None,
    }
}

/// The problems that `validate` tells of, by the numbers of the cases.
fn ours(repo: &Repo) -> BTreeMap<usize, Vec<Value>> {
    let ran = repo.run("validate hub-config lake --format json");
    assert!(matches!(ran.code, Some(0 | 1)), "{:?} {}", ran.code, ran.stderr);
    let told: Vec<Value> =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|err| panic!("{err}: {}", ran.stderr));
    let mut problems: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for it in told.into_iter().filter(|it| it["level"] == "problem") {
        let place = it["hub"].as_str().or(it["path"].as_str()).unwrap_or_default();
        let number = place.split(['/', '-', '.']).find_map(|it| it.strip_prefix('c')?.parse().ok());
        problems.entry(number.unwrap_or_else(|| panic!("of no case: {it}"))).or_default().push(it);
    }
    problems
}

fn helm(repo: &Repo, number: usize, args: &[&str]) -> Verdict {
    let mut helm = tool("helm");
    // Go's own threads and its collection of garbage make each of these short runs longer.
    helm.env("GOMAXPROCS", "1").env("GOGC", "off").args(["template", "x"]).args(args);
    helm.arg(repo.root.join(format!("helm-charts/c{number}")));
    let files = (1..).map(|it| repo.root.join(values_file(number, it))).take_while(|it| it.exists());
    let output = helm.args(files.map(|it| format!("--values={}", it.display()))).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).replace(repo.root.to_str().unwrap(), "");
    // A case that fails for anything else tests nothing.
    let about =
        ["failed to parse ", "cannot load values.yaml", "values don't meet the spec", "type mismatch on "];
    let known = output.status.success() || about.iter().any(|it| said.contains(it));
    assert!(known, "c{number}: {}: {said}", output.status);
    if output.status.success() { Ok(String::from_utf8(output.stdout).unwrap()) } else { Err(said) }
}

/// Makes schemas of all that helm computed, and now and then adds a twin with a wrong one. What helm says is known then
/// where it has nothing to compute; even so it's asked now and then.
fn pin(cases: &mut Vec<Case>, number: usize, output: &str) -> Option<(usize, Verdict)> {
    let (_, base64) = output.split_once("values: ").unwrap_or_else(|| panic!("c{number}: {output}"));
    let text = BASE64_STANDARD.decode(base64.lines().next().unwrap()).unwrap();
    let computed: Value = serde_json::from_slice(&text).unwrap();
    let case = &mut cases[number];
    case.pinned = Pinned::Yes;
    let is_chart = ["CHARTS", "LAYOUTS"].contains(&case.table);
    let mut schemas = Vec::new();
    for (chart, names) in instances(&case.files) {
        let wanted: Vec<_> = names.iter().filter_map(|it| computed.pointer(it)).collect();
        if !wanted.is_empty() {
            schemas.push((chart + "values.schema.json", json!({ "enum": wanted })));
        }
    }
    // The chart's own, the first, has helm's own text: serde_json's may have other numbers.
    let own = [b"{\"const\":", text.as_slice(), b"}"].concat();
    schemas.iter().for_each(|(path, it)| drop(case.files.insert(path.clone(), it.to_string().into())));
    case.files.insert("values.schema.json".into(), own);
    if number.is_multiple_of(if is_chart { 4 } else { 24 }) {
        let (path, mut schema) = schemas.swap_remove(number / 4 % schemas.len());
        change(&mut schema["enum"], number);
        let mut files = case.files.clone();
        files.insert(path, schema.to_string().into());
        cases.push(Case { table: cases[number].table, files, pinned: Pinned::Wrongly });
    }
    (!is_chart && !number.is_multiple_of(32)).then(|| (number, Ok(String::new())))
}

/// Changes one leaf in each of these.
fn change(value: &mut Value, nth: usize) {
    match value {
        Value::Array(items) if !items.is_empty() => items.iter_mut().for_each(|it| change(it, nth)),
        Value::Object(entries) if !entries.is_empty() => {
            let nth_entry = nth % entries.len();
            change(entries.iter_mut().nth(nth_entry).unwrap().1, nth / 3);
        }
        Value::Bool(it) => *it = !*it,
        Value::String(it) => it.push('.'),
        Value::Number(it) if it.as_i64() == Some(1) => *value = 2.into(),
        Value::Null | Value::Number(_) => *value = "other".into(),
        Value::Array(_) | Value::Object(_) => *value = json!({"other": [1]}),
    }
}

/// The folders of a chart and of its subcharts, and where the values for each are in the chart's own.
fn instances(files: &Files) -> Vec<(String, Vec<String>)> {
    let mut found = vec![(String::new(), vec![String::new()])];
    for folder in folders(files).into_iter().skip(1) {
        let (above, name) = folder.trim_end_matches('/').rsplit_once("charts/").unwrap();
        let names = aliases(files, above, name.trim_end_matches(".tgz"));
        let (_, above) = found.iter().find(|it| it.0 == above).unwrap();
        let places = above.iter().flat_map(|above| names.iter().map(move |it| format!("{above}/{it}")));
        let places = places.collect();
        found.push((folder, places));
    }
    found
}

/// What a subchart is called by the chart in the folder above. helm takes no alias from an entry without a version.
fn aliases(files: &Files, above: &str, name: &str) -> BTreeSet<String> {
    let lists = ["Chart.yaml", "requirements.yaml"].map(|it| files.get(&format!("{above}{it}")));
    let lists = lists.into_iter().flatten().map(|it| serde_yaml::from_slice::<Value>(it).unwrap());
    let entries = lists.flat_map(|it| it["dependencies"].as_array().cloned().unwrap_or_default());
    let named = entries.filter(|it| it["name"] == name && it["version"].is_string());
    let aliases: BTreeSet<_> = named.map(|it| it["alias"].as_str().unwrap_or(name).to_owned()).collect();
    if aliases.is_empty() { BTreeSet::from([name.to_owned()]) } else { aliases }
}

/// The folders of charts, each with a slash, those above first.
fn folders(files: &Files) -> Vec<String> {
    let mut found = BTreeSet::from([String::new()]);
    for path in files.keys() {
        let charts = path.match_indices("charts/").map(|(at, it)| at + it.len());
        found.extend(charts.filter_map(|at| Some(path[..at + path[at..].find('/')? + 1].to_owned())));
    }
    found.into_iter().collect()
}

fn values_file(number: usize, nth: usize) -> String {
    format!("config/clusters/lake/c{number}-{nth}.values.yaml")
}

fn cluster(cases: &[Case]) -> String {
    let mut yaml =
        "name: lake\nprovider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}\nhubs:\n".to_owned();
    for (number, case) in cases.iter().enumerate() {
        let files = case.files.keys().filter(|it| it.parse::<usize>().is_ok());
        let files: Vec<_> = files.map(|it| format!("c{number}-{it}.values.yaml")).collect();
        yaml += &format!(
            "- {{name: c{number}, domain: c{number}.example.org, helm_chart: c{number}, \
             helm_chart_values_files: [{}]}}\n",
            files.join(", ")
        );
    }
    yaml
}

impl Case {
    fn write(&self, repo: &Repo, number: usize) {
        let write = |path: &str, content: &[u8]| {
            let file = repo.root.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        };
        let chart = format!("helm-charts/c{number}");
        for folder in folders(&self.files) {
            let name = folder.trim_end_matches('/').rsplit('/').next().unwrap().trim_end_matches(".tgz");
            let given = self.files.get(&format!("{folder}Chart.yaml")).map(Vec::as_slice).unwrap_or_default();
            let given = str::from_utf8(given).unwrap();
            let version = if given.contains("apiVersion") { "" } else { "apiVersion: v2\n" };
            let name = if name.is_empty() { "parent" } else { name };
            let text = format!("{version}name: {name}\nversion: 0.1.0\n{given}\n");
            write(&format!("{chart}/{folder}Chart.yaml"), text.as_bytes());
        }
        for (path, content) in self.files.iter().filter(|(path, _)| !path.ends_with("Chart.yaml")) {
            match path.parse() {
                Ok(nth) => write(&values_file(number, nth), content),
                Err(_) => write(&format!("{chart}/{path}"), content),
            }
        }
        let template = "apiVersion: v1\nkind: Values\nvalues: {{ toJson .Values | b64enc }}\n";
        write(&format!("{chart}/templates/all.yaml"), template.as_bytes());
        for folder in folders(&self.files).iter().filter(|it| it.ends_with(".tgz/")) {
            let folder = repo.root.join(&chart).join(folder);
            package(&folder, folder.parent().unwrap());
            fs::remove_dir_all(folder).unwrap();
        }
    }

    fn show(&self) -> String {
        let show = |(path, content): (&String, &Vec<u8>)| format!("{path} | {}\n", content.escape_ascii());
        self.files.iter().map(show).collect()
    }
}

/// The results in the order of the items, by as many threads as there are processors.
fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { break };
                    let result = work(item);
                    done.lock().unwrap().insert(at, result);
                }
            });
        }
    });
    done.into_inner().unwrap().into_values().collect()
}

fn cases() -> Vec<Case> {
    let one = |table, text: Vec<u8>| {
        let files = Files::from([("1".to_owned(), text), ("values.yaml".to_owned(), b"{}".into())]);
        Case { table, files, pinned: Pinned::Wanted }
    };
    let mut cases = Vec::new();
    let items = |table: &'static str| table.trim().lines().flat_map(|it| it.split('¦')).map(str::trim);
    cases.extend(items(SCALARS).map(|it| one("SCALARS", format!("k: {it}\n").into())));
    cases.extend(items(KEYS).map(|it| one("KEYS", format!("{it}: 1\n").into())));
    cases.extend(items(DOCUMENTS).map(|it| one("DOCUMENTS", escape(it).into())));
    cases.extend(BYTES.iter().map(|it| one("BYTES", it.to_vec())));
    for text in long() {
        let case = one("long()", text.into());
        cases.push(Case { pinned: Pinned::No, ..case });
    }
    let under = |schema: &str, table, text: String| {
        let mut case = one(table, text.into());
        let schema = schema.replace("@4", &draft("draft-04")).replace("@6", &draft("draft-06"));
        let schema = schema.replace("@7", &draft("draft-07")).replace("@19", &draft("2019-09"));
        case.files.insert("values.schema.json".into(), escape(&schema).into());
        Case { pinned: Pinned::No, ..case }
    };
    for line in SCHEMAS.trim_matches('\n').lines() {
        let (schema, texts) = line.split_once('¦').unwrap();
        cases.extend(texts.split('¦').map(|it| under(schema.trim(), "SCHEMAS", it.trim().to_owned() + "\n")));
    }
    for line in FORMATS.trim().lines() {
        let (format, texts) = line.split_once('¦').unwrap();
        let schema =
            |draft| format!("{{{draft}\"additionalProperties\":{{\"format\":\"{}\"}}}}", format.trim());
        let texts: Vec<_> = texts.split('¦').map(|it| json!({"a": it.trim()}).to_string()).collect();
        cases.extend(texts.iter().map(|it| under(&schema("@7,"), "FORMATS", it.clone())));
        cases.extend(["@4,", ""].map(|it| under(&schema(it), "FORMATS", texts[1].clone())));
    }
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    for text in CHARTS.split("\n# ").skip(1) {
        cases.extend(charts("CHARTS", text, &mut dice));
    }
    for text in LAYOUTS.repeat(6).split("\n# ").skip(1) {
        cases.extend(charts("LAYOUTS", text, &mut dice));
    }
    cases
}

/// Files that no line of a table can hold.
const BYTES: &[&[u8]] = &[
    b"",
    b"a: \xff\n",
    b"# \xe9\na: 1\n",
    b"a: \xc0\x80\n",
    b"a: \xed\xa0\x80\n",
    b"a: \xf4\x90\x80\x80\n",
    b"a: 1\n---\nb: \xe9\n",
    b"\xff\xfea\0:\0 \x001\0\n\0",
    b"\xfe\xff\0a\0:\0 \x001",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xef\xbb\xbf\xef\xbb\xbfa: 1\n",
];

fn long() -> Vec<String> {
    let bomb = |levels: usize, width: usize| {
        let level =
            |nth: usize| format!("a{nth}: &a{nth} [{}]\n", vec![format!("*a{}", nth - 1); width].join(", "));
        format!("a0: &a0 x\n{}", (1..=levels).map(level).collect::<String>())
    };
    let key = |length| "k".repeat(length);
    vec![
        bomb(2, 10),
        bomb(3, 9),
        bomb(4, 9),
        bomb(6, 9),
        bomb(40, 2),
        bomb(200, 1),
        format!("a: &a {{b: 1}}\nc: [{}]\n", "*a, ".repeat(5000)),
        format!("a: &a {{b: 1}}\n{}", (0..300).map(|it| format!("c{it}: {{<<: *a}}\n")).collect::<String>()),
        format!("a: {}{}\n", "[".repeat(90), "]".repeat(90)),
        format!("a: {}{}\n", "[".repeat(9000), "]".repeat(9000)),
        format!("a: {}{}\n", "[".repeat(10001), "]".repeat(10001)),
        format!("a:\n  {}x\n", "- ".repeat(90)),
        format!("a:\n  {}x\n", "- ".repeat(10001)),
        format!("a: {}x{}\n", "{a: ".repeat(2000), "}".repeat(2000)),
        format!("{}: 1\n", key(1022)),
        format!("{}: 1\n", key(1023)),
        format!("{}: 1\n", key(1024)),
        format!("{}: 1\n", key(1025)),
        format!("\"{}\": 1\n", key(1023)),
        format!("\"{}\": 1\n", key(1024)),
        format!("? {}\n: 1\n", key(2000)),
        format!("{{{}: 1}}\n", key(2000)),
        format!("[{}]: 1\n", key(2000)),
        format!("a: {}", key(4093)),
        format!("a: |\n  {}\n---\nb: 1", key(4090)),
        format!("a: {}\nb: [", key(4089)),
    ]
}

/// The text with its signs replaced by what they stand for.
fn escape(text: &str) -> String {
    let mut text = text
        .replace('␠', " ")
        .replace('⏎', "\n")
        .replace('␍', "\r")
        .replace('⇥', "\t")
        .replace('🅱', "\u{feff}");
    while let Some((before, after)) = text.split_once('‹') {
        let (hex, after) = after.split_once('›').unwrap();
        let sign = char::from_u32(u32::from_str_radix(hex, 16).unwrap()).unwrap();
        text = format!("{before}{sign}{after}");
    }
    text
}

fn draft(name: &str) -> String {
    let (scheme, end) = if name.starts_with("draft") { ("http", "schema#") } else { ("https", "schema") };
    let name = if name.starts_with("draft") { name.to_owned() } else { format!("draft/{name}") };
    format!("\"$schema\":\"{scheme}://json-schema.org/{name}/{end}\"")
}

/// The cases of one chart: one for each values file `1`.
fn charts(table: &'static str, text: &str, dice: &mut Dice) -> Vec<Case> {
    let (mut files, mut firsts) = (Files::new(), Vec::new());
    for part in text.lines().skip(1).flat_map(|it| it.split('¦')) {
        let (path, content) = part.split_once('|').unwrap();
        let content = match content.trim().strip_prefix('?') {
            Some(names) => json!(dice.tree(&names.split_whitespace().collect::<Vec<_>>(), 3)).to_string(),
            None => escape(content.trim()),
        };
        match path.trim() {
            "1" => firsts.push(content.into()),
            path => drop(files.insert(path.to_owned(), content.into())),
        }
    }
    let with_schemas = files.keys().any(|it| it.ends_with("values.schema.json"));
    let pinned = if with_schemas { Pinned::No } else { Pinned::Wanted };
    let case = |first: Vec<u8>| {
        let mut files = files.clone();
        files.insert("1".to_owned(), first);
        Case { table, files, pinned }
    };
    firsts.into_iter().map(case).collect()
}

/// Chance that is the same in every run: Marsaglia's xorshift.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % sides
    }

    /// A map with some of the keys a, b and c, and most of these.
    fn tree(&mut self, names: &[&str], depth: u64) -> Map<String, Value> {
        let mut tree = Map::new();
        for key in ["a", "b", "c"] {
            if self.below(3) > 0 {
                tree.insert(key.to_owned(), self.value(depth));
            }
        }
        for name in names.iter().filter(|_| self.below(5) > 0).collect::<Vec<_>>() {
            let value = match (*name, self.below(36)) {
                ("live", nth) => {
                    [json!(true), json!(false), json!(null), json!("no")][nth as usize % 4].clone()
                }
                ("tags", nth) => json!({"front": nth % 2 == 0, "back": nth % 3 == 0}),
                (_, 0) => json!(null),
                ("global", 1) => json!("x"),
                (_, 2) => json!(1),
                ("global" | "exports", _) => json!(self.tree(&[], depth)),
                _ => json!(self.tree(if depth > 1 { &["live", "global", "deep"] } else { &[] }, depth - 1)),
            };
            tree.insert((*name).to_owned(), value);
        }
        tree
    }

    fn value(&mut self, depth: u64) -> Value {
        match self.below(12) {
            0..3 => json!(null),
            3 | 4 => json!(self.below(3)),
            5 => json!("x"),
            6 => json!([null, {"a": null}]),
            7 => json!(self.below(2) == 0),
            _ if depth == 0 => json!({}),
            _ => json!(self.tree(&[], depth - 1)),
        }
    }
}
