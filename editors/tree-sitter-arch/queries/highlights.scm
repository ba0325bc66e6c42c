; Written by `python -m editors.generate`: the operators are those of the compiler.

(identifier) @variable
[(int) (float)] @number
(bool) @boolean
(string) @string
(comment) @comment
(place) @label
(path) @string.special
(path (identifier) @string.special)

["use" "block" "model" "variant" "weights"] @keyword
["along" "as" "config" "default" "expect" "for" "from" "ignore" "include" "init" "input" "loss" "null" "optional" "output" "pad" "rename" "state" "weight" "tied"] @keyword
["if" "else"] @keyword.conditional
["and" "or" "not"] @keyword.operator
["float" "int" "bool" "one_of"] @type.builtin
(block_type) @type.builtin
["->" "=" "==" "!=" "<=" ">=" "<" ">" "|" "&" "+" "-" "*" "//" "/" "%"] @operator
["," ":"] @punctuation.delimiter
["(" ")" "[" "]" "{" "}"] @punctuation.bracket

(block name: (identifier) @function)
(model name: (identifier) @type)
(variant name: (identifier) @type)
(variant (call callee: (identifier) @type))
(weights model: (identifier) @type)
(param name: (identifier) @variable.parameter)
(arg name: (identifier) @variable.parameter)
(labeled label: (identifier) @label)
(setting field: (identifier) @property)
(setting field: (place) @property)
(conversion name: (identifier) @function.builtin)

(call callee: (identifier) @function.call)
(chain step: (identifier) @function.call)
(lambda step: (identifier) @function.call)
([(call callee: (identifier) @function.builtin)
  (chain step: (identifier) @function.builtin)
  (lambda step: (identifier) @function.builtin)]
 (#any-of? @function.builtin "abs" "add" "alibi" "at" "at_end" "attend" "attention" "binary_cross_entropy" "chunk" "compare" "concat" "contract" "contrastive" "conv1d" "cos" "cross_entropy" "delay" "divide" "dropout" "embed" "exp" "gelu" "gelu_tanh" "keys" "linear" "log" "max" "mean" "mix" "mixture" "mlp" "multiply" "next_token" "norm" "patches" "penalty" "posenc" "positions" "prefix" "queries" "quick_gelu" "readout" "reciprocal" "relative_bias" "relu" "renumber" "reshape" "rotary" "same" "scale" "scores" "shift" "sigmoid" "silu" "sin" "sinusoid" "slice" "softmax" "softplus" "split" "sqrt" "squared_error" "subtract" "sum" "take" "tanh" "tied" "top" "unembed" "weight" "within" "z_loss"))
((identifier) @constant.builtin (#any-of? @constant.builtin "none" "causal"))
