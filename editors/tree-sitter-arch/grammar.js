// The grammar of archdsl for tree-sitter, rule by rule that of archdsl/syntax/archdsl.lark.
// Operators, blocks and activations are names, as there.

const LEVELS = { or: 1, and: 2, compare: 3, either: 4, both: 5, sum: 6, product: 7, sign: 8 };

const list = (rule) => seq(rule, repeat(seq(",", rule)));
const listed = (rule) => optional(seq(list(rule), optional(",")));
const binary = ($, level, operand, ...signs) =>
  prec.left(
    LEVELS[level],
    seq(field("left", operand), field("operator", choice(...signs)), field("right", operand)),
  );

module.exports = grammar({
  name: "arch",
  extras: ($) => [/[ \t\r\n]/, $.comment],
  word: ($) => $.identifier,
  conflicts: ($) => [[$._name, $.weight], [$._name, $.state]],

  rules: {
    file: ($) => repeat($._item),

    _item: ($) => choice($.use, $.block, $.model, $.variant, $.weights, $.shared_lines),
    use: ($) => seq("use", $.string),
    block: ($) =>
      seq(
        "block",
        field("name", $._name),
        $.params,
        optional(seq(":", field("type", choice($.type, $.types)))),
        $.body,
      ),
    model: ($) => seq("model", field("name", $._name), $.params, $.body),
    variant: ($) => seq("variant", field("name", $._name), "=", $.call, optional($.facts)),
    weights: ($) => seq("weights", $.string, "for", field("model", $._name), $._rules),
    shared_lines: ($) => seq("weights", $.string, optional($.params), $._rules),

    params: ($) => seq($._open, listed($.param), ")"),
    param: ($) =>
      seq(
        field("name", $._name),
        optional(seq(":", field("type", choice($.type, $.block_type, $.choices)))),
        optional(seq("=", field("default", $._value))),
      ),
    block_type: () => "block",
    choices: ($) => seq("one_of", $._open, list($._name), ")"),

    body: ($) => seq("{", repeat($._statement), "}"),
    facts: ($) => seq("{", repeat(choice($.expect, $.expect_type)), "}"),
    _statement: ($) =>
      choice(
        $.input,
        $.weight,
        $.edge,
        $.edges,
        $.state,
        $.output,
        $.loss,
        $.init,
        $.expect,
        $.expect_type,
        $.result,
      ),
    input: ($) => seq("input", $._declared, optional(seq("=", $._sum))),
    weight: ($) => seq("weight", $._declared, optional(seq("=", $._sum))),
    edge: ($) => seq(field("name", $._name), "=", field("value", $._value)),
    edges: ($) =>
      seq(
        field("name", $._name),
        repeat1(seq(",", field("name", $._name))),
        "=",
        field("value", $._value),
      ),
    state: ($) =>
      seq(
        "state",
        $._declared,
        "along",
        field("axis", $._name),
        optional(seq("from", field("start", $._sum))),
        "=",
        field("value", $._value),
      ),
    output: ($) => seq("output", $._declared, optional($._if), "=", field("value", $._value)),
    loss: ($) => seq("loss", $.term, repeat(seq("+", $.term)), optional($._if)),
    term: ($) => seq(optional(seq(choice($.int, $.float, $._name), "*")), $.call),
    init: ($) => seq("init", choice($.call, $._name)),
    expect: ($) =>
      seq("expect", $._sum, field("operator", choice("==", "<=", ">=", "<", ">")), $._sum),
    expect_type: ($) => seq("expect", $._declared),
    result: ($) => $._value,
    _declared: ($) => seq(field("name", $._name), ":", field("type", $.type)),
    _if: ($) => seq("if", field("condition", $._condition)),

    types: ($) => seq("(", $.type, repeat1(seq(",", $.type)), optional(","), ")"),
    type: ($) =>
      prec.right(
        seq(
          field("dtype", choice("float", "int", "bool")),
          optional(seq("[", list($.axis), "]")),
          optional(seq("<", field("below", $._sum))),
          optional(seq("pad", field("pad", $._sum))),
        ),
      ),
    axis: ($) => choice(seq($._sum, optional(seq("<=", $._sum, optional(seq("<=", $._sum))))), "..."),

    _value: ($) => choice($._step, $.chain),
    chain: ($) => seq(field("first", $._step), repeat1(seq("->", field("step", $._step)))),
    _step: ($) => choice($._plain_step, $.when),
    _plain_step: ($) => choice($._condition, $.labeled),
    when: ($) =>
      prec.right(
        seq(field("value", $._plain_step), $._if, optional(seq("else", field("otherwise", $._plain_step)))),
      ),
    labeled: ($) => seq(field("label", choice($._name, $.place)), ":", field("value", $._sum)),

    _condition: ($) => choice($._sum, $.compare, $.binary),
    compare: ($) => binary($, "compare", $._condition, "==", "!=", "<=", ">=", "<", ">"),
    binary: ($) =>
      choice(
        binary($, "or", $._condition, "or"),
        binary($, "and", $._condition, "and"),
        binary($, "either", $._condition, "|"),
        binary($, "both", $._condition, "&"),
      ),

    _sum: ($) => choice(alias($.arithmetic, $.binary), $.repeat, $.negate, $.not, $._atom),
    arithmetic: ($) =>
      choice(
        binary($, "sum", $._sum, "+", "-"),
        binary($, "product", $._sum, "*", "//", "/", "%"),
      ),
    repeat: ($) =>
      prec.left(
        LEVELS.product,
        seq(
          field("block", $._sum),
          "*",
          field("count", $._sum),
          choice("tied", seq(optional("tied"), "as", field("number", $._name))),
        ),
      ),
    negate: ($) => prec(LEVELS.sign, seq("-", $._sum)),
    not: ($) => prec(LEVELS.sign, seq("not", $._sum)),

    _atom: ($) =>
      choice($.int, $.float, $.bool, $.string, $._name, $.call, $.lambda, $._parenthesized, $.several),
    _parenthesized: ($) => seq("(", $._value, ")"),
    several: ($) => seq("(", $._value, repeat1(seq(",", $._value)), optional(","), ")"),
    call: ($) => seq(field("callee", $._name), token.immediate("("), listed($.arg), ")"),
    arg: ($) =>
      seq(optional(seq(field("name", $._name), "=")), field("value", choice($._value, $.typed))),
    typed: ($) => $._declared,
    lambda: ($) => seq("{", field("step", $._step), repeat(seq("->", field("step", $._step))), "}"),

    _rules: ($) =>
      seq("{", repeat(choice($.config, $.include, $.optional, $.rename, $.only, $.rule, $.ignore)), "}"),
    config: ($) =>
      seq(
        "config",
        "{",
        repeat(choice($.setting, $.include, $.rename, alias($.only_settings, $.only))),
        "}",
      ),
    setting: ($) =>
      seq(
        field("field", choice($._name, $.place)),
        repeat(seq("|", field("field", choice($._name, $.place)))),
        "=",
        $._sum,
        optional(seq("default", $._sum)),
        optional(seq("null", $._sum)),
      ),
    only_settings: ($) =>
      seq(
        $._if,
        "{",
        repeat(choice($.setting, $.include, alias($.only_settings, $.only))),
        "}",
      ),
    only: ($) =>
      seq($._if, "{", repeat(choice($.only, $.include, $.rename, $.rule, $.ignore)), "}"),
    include: ($) => seq("include", $.string, optional(seq($._open, listed($.arg), ")"))),
    optional: ($) => seq("optional", $.path),
    rename: ($) => seq("rename", $.path, "=", $.path),
    ignore: ($) => seq("ignore", $.path),
    rule: ($) =>
      seq($.path, "=", $.path, repeat(seq("|", $.path)), repeat(seq("->", $.conversion))),
    conversion: ($) =>
      seq(
        field("name", $._name),
        optional(seq(token.immediate("("), list($._sum), ")")),
      ),

    _open: () => choice("(", token.immediate("(")),
    // Two keywords are usual names too.
    _name: ($) =>
      choice($.identifier, alias("weight", $.identifier), alias("state", $.identifier)),
    bool: () => choice("true", "false"),
    comment: () => /#[^\n]*/,
    string: () => /"[^"\n]*"/,
    int: () => /[0-9]+(_[0-9]+)*/,
    float: () => /[0-9]+(_[0-9]+)*(\.[0-9]+([eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)/,
    identifier: () => /[A-Za-z_][A-Za-z_0-9]*/,
    place: () => /[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_0-9\/]+)+/,
    path: ($) => choice($.identifier, /(-?[A-Za-z_0-9.*\/]|-?\{[^{}\n]*\})+/),
  },
});
