"""Every code of every error: what causes it, and what cures it. `docs/errors.md` is made of this table.

Whoever raises an error with a new code adds its row here and runs `make errors-page`; a test compares the
table with what the sources raise, in both directions. The prose is fixed text: nothing of a request, of a
server or of a machine is in it, so a service may show the cause to its clients, and
`DspexError.to_public_dict` does where the mistake is theirs.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["CODES", "Code", "find"]


class Code(NamedTuple):
    """One code.

    Attributes:
        code: The code.
        classes: Names of the classes that carry it, separated by blanks.
        cause: What has happened, in one sentence.
        cure: What to do about it.
    """

    code: str
    classes: str
    cause: str
    cure: str


def find(code: str) -> Code | None:
    """The row of a code; None for one that is not dspex's."""
    return _BY_CODE.get(code)


CODES: Final = (
    # --- the root ---
    Code(
        "error",
        "DspexError",
        "Something went wrong that has no class of its own.",
        "Read the message; report it if it does not say what to do.",
    ),
    Code(
        "core-panic",
        "DspexError",
        "The Rust core failed where it should not have. The call has no result; everything else goes on.",
        "Report it with the place that the message names.",
    ),
    Code(
        "cancelled",
        "DspexError",
        "A call, or a function that the work of a call asked for, was cancelled.",
        "Nothing, if the caller left; otherwise look at who cancels it.",
    ),
    # --- ConfigError: settings and set-up ---
    Code(
        "config",
        "ConfigError",
        "A setting is wrong.",
        "Correct the setting that the message names.",
    ),
    Code(
        "adapter",
        "ConfigError",
        "`adapter=` is neither an adapter of dspex nor the name of one.",
        'Use `"chat"`, `"json"`, `"xml"`, `"baml"`, `"two_step"` or an adapter object of dspex.',
    ),
    Code(
        "adapter-of-dspex",
        "ConfigError",
        "DSPy was given an adapter of dspex's own modules.",
        "Use `dspex.dspy.ChatAdapter`, `JSONAdapter` or `XMLAdapter` under DSPy.",
    ),
    Code(
        "bad-lm",
        "ConfigError",
        "What was given as the LM is not a language model, or DSPy refuses the settings of the worker's LM.",
        "Give what the hint says, or correct the settings that the message names.",
    ),
    Code(
        "bad-pool-setting",
        "ConfigError",
        "A setting of a pool is unknown, or its value is not allowed.",
        "Correct the setting at `path`; the hint says what is allowed.",
    ),
    Code(
        "bad-pools",
        "ConfigError",
        "`pools=` is neither a number of workers nor a `PoolSpec` nor several of them, or a `Pool` was given "
        "something else than a `PoolSpec`.",
        "Write `pools=4`, `pools=dspex.PoolSpec(...)` or a list of those; `dspex.Pool(dspex.PoolSpec(...))`.",
    ),
    Code(
        "bad-runtime",
        "ConfigError",
        "What a module was given as its runtime cannot run calls.",
        "Give it an object: `runtime=dspex.Runtime(lm=...)`.",
    ),
    Code(
        "bad-settings-file",
        "ConfigError",
        "The file with the settings of pools is not TOML.",
        "Correct the file at the line that the message names.",
    ),
    Code(
        "blocking-in-loop",
        "ConfigError",
        "A blocking call was made on a thread that runs an event loop, which it would stop.",
        "Await the method's asynchronous twin, which the hint names.",
    ),
    Code(
        "lm-api-base",
        "ConfigError",
        "`api_base` is not the address of a server, or carries a password or a query.",
        "Write it as `http(s)://host[:port]/v1`, and give the key by `api_key=`.",
    ),
    Code(
        "lm-model",
        "ConfigError",
        "The model is not written as provider and name, or the provider's name is misspelt.",
        "Write `openai/<name>`, with `api_base=` for another server, or a provider of DSPy's.",
    ),
    Code(
        "lm-not-for-workers",
        "ConfigError",
        "The LM lives in the service's process, so a worker cannot use it.",
        "Use a `dspex.LM` or the name of a model, or leave out the pools.",
    ),
    Code(
        "lm-of-dspy",
        "ConfigError",
        "The LM that a runtime was given is one of DSPy's.",
        "Write the `dspex.LM` that the hint shows.",
    ),
    Code(
        "lm-setting",
        "ConfigError",
        "A setting of the LM or of a request is unknown, out of range or cannot be written as JSON.",
        "Correct or leave out the setting that the message names.",
    ),
    Code(
        "markers",
        "ConfigError",
        "`markers=` is not a known policy.",
        "Use one of those that the hint lists.",
    ),
    Code(
        "module-argument",
        "ConfigError",
        "An argument of a remote module is no plain value, and no function of the service.",
        "Define it at the top of a module that the worker can import, and name it by `imports=`.",
    ),
    Code(
        "no-code-interpreter",
        "ConfigError",
        "The program runs code, and the worker has no interpreter for it.",
        "Install `dspy[deno]` where the workers run, or name another interpreter in `imports`.",
    ),
    Code(
        "unknown-setting",
        "ConfigError",
        "A keyword is an argument of something else, or is probably a misspelt setting.",
        "Write what the hint says; `extra_body=` takes any name that a server has.",
    ),
    Code(
        "no-lm",
        "ConfigError",
        "No language model was named, for the runtime, for the pool or for the call.",
        'Give `lm="openai/<name>"` or a `dspex.LM`.',
    ),
    Code(
        "no-pools-here",
        "ConfigError",
        "The platform has no Unix sockets and signals, which pools need.",
        'Use `route="native"`, or run the service on Linux, macOS or WSL.',
    ),
    Code(
        "no-ray",
        "ConfigError",
        "Ray is not installed, or this process is connected to no cluster.",
        "Install `dspex[ray]` and call `ray.init(...)` before.",
    ),
    Code(
        "no-forward",
        "ConfigError",
        "A program of one's own says nowhere what it does.",
        "Define `def forward(self, ...)` or `async def aforward(self, ...)`.",
    ),
    Code(
        "no-tools-field",
        "ConfigError",
        "The signature has an output for calls of tools, and no input for the tools.",
        "Add an input of the type `list[dspy.Tool]`.",
    ),
    Code(
        "no-runtime",
        "ConfigError",
        "There is no runtime that could run the call.",
        'Call `dspex.configure(lm="openai/...")` once, or work inside `with dspex.Runtime(lm=...)`.',
    ),
    Code(
        "no-settings-file",
        "ConfigError",
        "The file with the settings of pools cannot be read.",
        "Correct the path, or the file's permissions.",
    ),
    Code(
        "no-such-pool",
        "ConfigError",
        "The file has no pool of that name.",
        "Use one of the names that the hint lists.",
    ),
    Code(
        "no-forkserver-here",
        "ConfigError",
        "The platform's libraries do not survive being forked, so workers cannot start from a forkserver.",
        "Leave `start='auto'`, or set `start='spawn'`.",
    ),
    Code(
        "parsing",
        "ConfigError",
        "`parsing=` is not a known way of reading replies.",
        "Use `'tolerant'` or `'dspy'`.",
    ),
    Code(
        "pool-name",
        "ConfigError",
        "Two pools of a runtime have one name.",
        "Rename one of them.",
    ),
    Code(
        "pool-view",
        "ConfigError",
        "The pool is a view of another's, who alone may start and close it.",
        "Await the pool's own method on the loop it was started on.",
    ),
    Code(
        "react-name",
        "ConfigError",
        "A field or a tool of a `ReActV2` has a name that is its own: `history`, `tools`, `submit`, ...",
        "Rename it.",
    ),
    Code(
        "react-needs-dspy",
        "ConfigError",
        "`ReActV2` needs the types of DSPy's tools, and DSPy is missing or too old.",
        "Install DSPy 3.3 or newer.",
    ),
    Code(
        "react-setting",
        "ConfigError",
        "`max_iters` of a `ReActV2` is no count.",
        "Write a whole number, `max_iters=20`.",
    ),
    Code(
        "runtime-async",
        "ConfigError",
        "A runtime that was opened on an event loop was closed with the blocking method.",
        "Close it with `await aclose()`.",
    ),
    Code(
        "runtime-closed",
        "ConfigError",
        "The runtime is not open: not yet, or no longer.",
        "Use it inside `with` or `async with`.",
    ),
    Code(
        "runtime-forked",
        "ConfigError",
        "The runtime was opened by another process, of which this one is a fork.",
        "Open a runtime in the child, after the fork.",
    ),
    Code(
        "runtime-reopened",
        "ConfigError",
        "A runtime was opened a second time.",
        "Make a new `Runtime`.",
    ),
    Code(
        "program-file",
        "ConfigError",
        "The file of a saved program cannot be read or written.",
        'Look at the path; the file has to be what `program.save("program.json")` wrote, here or in DSPy.',
    ),
    Code(
        "program-pickle",
        "ConfigError",
        "A program was saved as a pickle, which runs whatever it holds.",
        'Save it as JSON: `program.save("program.json")`, here or in DSPy.',
    ),
    Code(
        "program-state",
        "ConfigError",
        "A saved state is not that of the program, or holds what cannot be saved.",
        "Load it into the program that it was saved from; its paths are those of `named_predictors()`.",
    ),
    Code(
        "several-lms",
        "ConfigError",
        "The predictors of a program have no language model in common.",
        "Ask a predictor for its own: `program.named_predictors()`.",
    ),
    Code(
        "template-limit",
        "ConfigError",
        "A limit of a template is not a positive whole number.",
        "Correct the limit that the message names.",
    ),
    Code(
        "type-name",
        "ConfigError",
        "Two types of one signature have the same name, so a worker cannot tell them apart.",
        "Rename one of them.",
    ),
    Code(
        "type-not-importable",
        "ConfigError",
        "A worker cannot import a type of the signature: it is defined in a function or a script.",
        'Define it at the top of a module, or call with `route="native"`.',
    ),
    Code(
        "unknown-dialect",
        "ConfigError",
        "`dialect=` names no version of DSPy whose prompts dspex knows.",
        "Use one of those that the hint lists.",
    ),
    Code(
        "unknown-dspy",
        "ConfigError",
        "A version of DSPy is installed whose prompts dspex does not know.",
        "Say whose prompts to write with `dialect=`, or install a version that the hint lists.",
    ),
    # --- ConfigError: one call ---
    Code(
        "no-such-code",
        "ConfigError",
        "`dspex errors` was asked for a code that no error has.",
        "Use one that it lists.",
    ),
    Code(
        "bad-attempts",
        "ConfigError",
        "A count of attempts, or another setting of a module that makes several, makes no sense.",
        "Correct the setting that the message names.",
    ),
    Code(
        "bad-batch",
        "ConfigError",
        "An option of a batch makes no sense, or is one of DSPy's that dspex does not follow.",
        "Write what the message says; `docs/modules.md` lists the options.",
    ),
    Code(
        "bad-call",
        "ConfigError",
        "The request, session, host functions or `idempotent` of a pool's call are not of the right kind.",
        "Give a request such as `FunctionRequest.of(f, ...)`, a text, and a mapping of names to functions.",
    ),
    Code(
        "bad-input-stream",
        "ConfigError",
        "An input stream cannot be iterated, or the request takes none.",
        "Give an async iterator, an iterator or a list, by the name of an argument.",
    ),
    Code(
        "bad-import-path",
        "ConfigError",
        "The worker cannot import what the call names.",
        "Name something at the top of a module that a worker can import, as `package.module:name`.",
    ),
    Code(
        "bad-module",
        "ConfigError",
        "A DSPy module refuses the arguments or the state that it was made with.",
        "Correct them; the message has the module's own words.",
    ),
    Code(
        "bad-payload",
        "ConfigError",
        "A request to a worker lacks a part, has an unknown one or a value of the wrong kind.",
        "Correct it; the hint says what the request takes.",
    ),
    Code(
        "bad-state",
        "ConfigError SignatureError",
        "Saved state cannot be read, or is not what it should be.",
        "Give what `save` or `dump_state` wrote.",
    ),
    Code(
        "bad-stream",
        "ConfigError",
        "The options of a stream name a field that no predictor has, or no provider of status messages.",
        "Use a list of fields that the hint names, or a subclass of `dspy.streaming.StatusMessageProvider`.",
    ),
    Code(
        "bad-target",
        "ConfigError",
        "`dspex diff` or `dspex signature` was given neither a signature nor a path that can be imported.",
        'Write `"question -> answer"` or `package.module:attribute`; `dspex diff` takes a .json file too.',
    ),
    Code(
        "bad-timeout",
        "ConfigError",
        "A time limit is not a number of seconds above 0.",
        "Give an int or a float: no text, no bool, no infinity.",
    ),
    Code(
        "bad-tool",
        "ConfigError",
        "A tool is no function, has the name of another, has an argument without a type that JSON can "
        "carry, or has to be where the worker can import it.",
        "Annotate its arguments with `str`, `int`, `list[...]` and the like; name its path for "
        "`dspy.CodeAct`.",
    ),
    Code(
        "bad-trace",
        "ConfigError",
        "What was given as a trace is not a W3C trace context.",
        "Give a `traceparent`, and nothing but the headers that belong to it.",
    ),
    Code(
        "diff-file",
        "ConfigError",
        "`dspex diff` cannot use the file: it is not what `Module.save` wrote for that program.",
        "Give a file that `Module.save` wrote.",
    ),
    Code(
        "no-host-call",
        "ConfigError",
        "The work asks for a function that its call was not given, or asks for it where it cannot.",
        "Pass the function in `host_functions=`; asynchronous work awaits `call_host`.",
    ),
    Code(
        "not-a-module",
        "ConfigError",
        "What the call names is not a DSPy module, nor another class whose objects are called.",
        "Name a class of `dspy.Module`, or a retriever.",
    ),
    Code(
        "not-a-prediction",
        "ConfigError",
        "A streamed module answered with something else than a prediction.",
        "Let its `forward` return a `Prediction` of its library, or call it without streaming.",
    ),
    Code(
        "not-a-stream",
        "ConfigError",
        "What was asked for does not answer in parts.",
        "Use `pool.call`, or name a generator.",
    ),
    # --- SignatureError ---
    Code(
        "text",
        "TextError",
        "A text has a mistake.",
        "Correct it where the carets point.",
    ),
    Code(
        "signature",
        "SignatureError",
        "A signature cannot be read.",
        "Correct it; the message says what is wrong.",
    ),
    Code(
        "arrow-in-string",
        "SignatureError",
        "There is a `->` inside quotes, where DSPy would split the text.",
        "Use a class signature, or pass the type in `types=`.",
    ),
    Code(
        "class-call",
        "SignatureError",
        "A class signature was called.",
        "Pass the class itself: `dspex.Predict(QA)`.",
    ),
    Code(
        "comment-at-end",
        "SignatureError",
        "A comment runs up to the arrow or to the end of the text.",
        "End it with a line break, or leave it out.",
    ),
    Code(
        "default-order",
        "SignatureError",
        "A field without a default follows one that has a default.",
        "Put fields with a default behind those without.",
    ),
    Code(
        "default-value",
        "SignatureError",
        "The default of a field in a text is not a plain value.",
        "Use a class signature.",
    ),
    Code(
        "duplicate-field",
        "SignatureError",
        "An input and an output have the same name.",
        "Give them different names.",
    ),
    Code(
        "expression",
        "SignatureError",
        "A type in a text is an expression that no type is written as.",
        "Write names, names with `[...]`, and types joined by `|`; a class signature takes anything else.",
    ),
    Code(
        "field-index",
        "SignatureError",
        "The place for an inserted field is outside its section.",
        "Count from the start of the inputs or outputs, or use -1 to append.",
    ),
    Code(
        "field-kind",
        "SignatureError",
        "A field is declared neither as an input nor as an output.",
        "Write `name: type = dspex.InputField()` or `dspex.OutputField()`.",
    ),
    Code(
        "field-name",
        "SignatureError",
        "A name cannot name a field.",
        "Choose an identifier of Python that is not a keyword.",
    ),
    Code(
        "bad-types",
        "SignatureError",
        "A key of `types=` is not a text that could name a type.",
        "Use the names that stand in the text of the signature.",
    ),
    Code(
        "field-text",
        "SignatureError",
        "A field's description, prefix or format is not a text.",
        "Give a string.",
    ),
    Code(
        "field-value",
        "SignatureError",
        "What was given for a field is not one.",
        "Give `InputField(...)`, `OutputField(...)` or a pair of type and field.",
    ),
    Code(
        "invalid-escape",
        "SignatureError",
        "A string in a type holds an escape that Python does not know or that is not finished.",
        "Write the character itself, or a raw string.",
    ),
    Code(
        "invalid-number",
        "SignatureError",
        "A number in a type is not written as Python writes numbers.",
        "Correct it.",
    ),
    Code(
        "keyword-name",
        "SignatureError",
        "A field has a keyword of Python as its name.",
        "Choose another name.",
    ),
    Code(
        "literal-value",
        "SignatureError",
        "A `Literal` holds something that is no value.",
        "Give strings, numbers, True, False, None, bytes or members of an enum.",
    ),
    Code(
        "many-arrows",
        "SignatureError",
        "The text has more than one `->`.",
        "Write one step: inputs, one arrow, outputs.",
    ),
    Code(
        "missing-arrow",
        "SignatureError",
        "The text has no `->`.",
        "Put it between the inputs and the outputs: `question -> answer`.",
    ),
    Code(
        "no-json-schema",
        "SignatureError",
        "Pydantic can make no JSON schema of the type of an output, which the adapter needs.",
        "Use a type that JSON can carry.",
    ),
    Code(
        "no-such-field",
        "SignatureError",
        "The signature has no field of that name.",
        "Use one of those that the hint lists.",
    ),
    Code(
        "not-a-type",
        "SignatureError",
        "The annotation of a field is a value, not a type.",
        "Give a class or a type of `typing`.",
    ),
    Code(
        "parameter-marker",
        "SignatureError",
        "The text holds `*`, `/` or another marker of a parameter list.",
        "Write plain names.",
    ),
    Code(
        "reserved-name",
        "SignatureError",
        "DSPy's signature class has an attribute of that name.",
        "Choose another name.",
    ),
    Code(
        "signature-refused-by-dspy",
        "SignatureError",
        "DSPy, in the worker, refuses the signature, for example because of a default of the wrong type.",
        "Correct it; the message says what was wrong.",
    ),
    Code(
        "signature-source",
        "SignatureError",
        "What was given is neither a signature nor something one can be made of.",
        "Pass a string, a dict of fields, a `dspex.Signature` or a `dspy.Signature` class.",
    ),
    Code(
        "syntax",
        "SignatureError",
        "The text is not a list of fields.",
        "Write `name` or `name: type`, separated by commas.",
    ),
    Code(
        "too-deep",
        "SignatureError",
        "The brackets of a type nest deeper than the limit.",
        "Raise the limit if the type is meant to be that deep.",
    ),
    Code(
        "too-long",
        "SignatureError",
        "The text has more characters than the limit.",
        "Raise the limit if the signature is meant to be that long.",
    ),
    Code(
        "too-many-fields",
        "SignatureError",
        "The signature has more fields than the limit.",
        "Raise the limit if it is meant to have that many.",
    ),
    Code(
        "type-arguments",
        "SignatureError",
        "A type has too many, too few or the wrong arguments in its brackets.",
        "Write `list[T]`, `dict[K, V]`, `tuple[A, B]`, `Optional[T]` and so on.",
    ),
    Code(
        "unclosed-bracket",
        "SignatureError",
        "A bracket is not closed.",
        "Close it on the same side of the arrow.",
    ),
    Code(
        "underscore-name",
        "SignatureError",
        "A field's name begins with an underscore, which pydantic keeps for private attributes.",
        "Drop the underscore.",
    ),
    Code(
        "unknown-attribute",
        "SignatureError",
        "A module or class that a type names has no such attribute.",
        "Check the spelling, or pass the type in `types=`.",
    ),
    Code(
        "unknown-name",
        "SignatureError",
        "A type is not known where the signature is made.",
        "Pass it as `types={'Name': Name}`, or define it there.",
    ),
    Code(
        "unsupported-type",
        "SignatureError",
        "Pydantic, and so DSPy, cannot validate values of the type.",
        "Use a type that pydantic can validate.",
    ),
    Code(
        "unterminated-string",
        "SignatureError",
        "A string in a type is not closed.",
        "Close the quotes; only triple quotes span lines.",
    ),
    # --- TemplateError ---
    Code(
        "template",
        "TemplateError",
        "A template cannot be used.",
        "Correct it; the message says what is wrong.",
    ),
    Code(
        "template-depth",
        "TemplateError",
        "Macros or loops nest too deep.",
        "Raise `max_depth` if that is meant.",
    ),
    Code(
        "template-fuel",
        "TemplateError",
        "The template does more steps than `fuel` allows.",
        "Raise `fuel` if that is meant.",
    ),
    Code(
        "template-operation",
        "TemplateError",
        "An operation does not fit its values.",
        "Correct the expression where the carets point.",
    ),
    Code(
        "template-output",
        "TemplateError",
        "The text that the template produces is larger than `max_output`.",
        "Raise `max_output` if that is meant.",
    ),
    Code(
        "template-source-too-long",
        "TemplateError",
        "The template itself is longer than is compiled.",
        "Give long texts as values, not as part of the template.",
    ),
    Code(
        "template-syntax",
        "TemplateError",
        "The template is not written in Jinja's syntax.",
        "Correct it where the carets point; other templates cannot be included.",
    ),
    Code(
        "template-undefined",
        "TemplateError",
        "A name or an entry has no value.",
        "Give it a value, or write `{{ name | default('...') }}`.",
    ),
    Code(
        "template-unknown-name",
        "TemplateError",
        "There is no filter, test, function or method of that name.",
        "Use one that docs/templates.md lists.",
    ),
    Code(
        "template-unknown-variable",
        "TemplateError",
        "The template asks for a value that the signature does not give; `unknown` has the names.",
        "Use the names of the signature's inputs.",
    ),
    Code(
        "template-value",
        "TemplateError",
        "A value that the template makes on the way has grown too large, such as a list added to itself.",
        "Raise `max_output` if that is meant.",
    ),
    # --- InputError ---
    Code(
        "input",
        "InputError",
        "Inputs are missing, unknown or of the wrong type; `problems` has all of them.",
        "Correct them; the hint has the signature.",
    ),
    Code(
        "injected-marker",
        "InputError",
        "A value holds the marker of a field, with which it could pass for another field.",
        'Clean the value, or let it be escaped with `markers="escape"`.',
    ),
    Code(
        "history",
        "InputError",
        "What was given as the history has no messages.",
        "Give a `dspy.History`, or the turns themselves.",
    ),
    Code(
        "bad-completions",
        "InputError",
        "The completions to compare or to count are too few or too many, or lack a field.",
        "Give what the message says, such as `prediction.completions`.",
    ),
    Code(
        "bad-demos",
        "InputError",
        "Demos are no list of examples, or one of them does not map field names to values.",
        'Write `demos=[{"question": "...", "answer": "..."}]`.',
    ),
    Code(
        "bad-row",
        "InputError",
        "A row of a batch maps no names of inputs to values, or the rows are none.",
        'Write rows such as `{"question": "..."}`.',
    ),
    Code(
        "bad-tools",
        "InputError",
        "A value that has to be tools is none.",
        "Write `tools=[dspy.Tool(function), ...]`.",
    ),
    Code(
        "positional-inputs",
        "InputError",
        "Inputs came without their names.",
        "Write each with the name of its field, as the hint shows.",
    ),
    Code(
        "arguments",
        "InputError",
        "A function or a program in a worker takes no such arguments.",
        "Give it those that the hint names.",
    ),
    Code(
        "input-type",
        "InputError",
        "The worker cannot make a value of its field's type.",
        "Give a value of that type.",
    ),
    Code(
        "list-item",
        "InputError",
        "A list for a field of type `str` holds something else than texts.",
        "Make each item a `str`, or give the field a type such as `list[int]`.",
    ),
    Code(
        "lone-surrogate",
        "InputError SignatureError",
        "A text holds half of a surrogate pair, which no model can be sent.",
        'Repair it before the call, for example with `text.encode("utf-8", "replace").decode()`.',
    ),
    Code(
        "no-reference",
        "InputError",
        "A metric was given no reference to compare with.",
        "Give one.",
    ),
    # --- RouteError ---
    Code(
        "route",
        "RouteError",
        "No target can serve the call.",
        "Read the message and the hint.",
    ),
    Code(
        "lm-needs-dspy",
        "RouteError",
        "Only DSPy speaks to the model's provider, and the call was to run natively.",
        'Leave out `route="native"` and give the runtime a pool, or a server of OpenAI\'s protocol.',
    ),
    Code(
        "adapter-needs-dspy",
        "RouteError",
        "The adapter is DSPy's alone, and the call was to run natively.",
        'Leave out `route="native"` and give the runtime a pool, or use "chat", "json" or "xml".',
    ),
    Code(
        "module-needs-dspy",
        "RouteError",
        "The module is DSPy's, and the runtime has no workers, or the call was to run natively.",
        'Give the runtime a pool and a `dspex.LM`, and leave out `route="native"`.',
    ),
    Code(
        "native-tools",
        "RouteError",
        "The adapter makes native tool calls, and the call was to run in a worker.",
        'Leave out `route="python"`, or `use_native_function_calling=` of the adapter.',
    ),
    Code(
        "native-unable",
        "RouteError",
        "The call was to run natively, and cannot.",
        'Leave out `route`, or ask for `"python"`.',
    ),
    Code(
        "no-target",
        "RouteError",
        "The runtime has no target that can run the call.",
        "Give it a pool with `pools=`.",
    ),
    Code(
        "unknown-route",
        "RouteError",
        "`route=` is neither a side nor the name of a target.",
        'Use `"native"`, `"python"` or a name that the hint lists.',
    ),
    # --- ReplyError ---
    Code(
        "reply",
        "ReplyError",
        "The model's reply cannot be read as the outputs.",
        "Describe the fields more clearly, or use a stronger model; the reply is in `reply`.",
    ),
    Code(
        "no-submit",
        "ReplyError",
        "A `ReActV2` came to its end and the model submitted nothing that can be used.",
        "Allow more turns by `max_iters=`, or ask a model that calls tools well.",
    ),
    Code(
        "reply-empty",
        "ReplyError",
        "The model's reply is empty: no choice, no text, or a refusal.",
        "Look at why it stopped: a filter, or `max_tokens` used up before it wrote anything.",
    ),
    Code(
        "reply-field-value",
        "ReplyError",
        "A value in the reply is not of its field's type; `field` names it.",
        "Describe the field more clearly, or give it a wider type.",
    ),
    Code(
        "reply-missing-fields",
        "ReplyError",
        "The reply lacks outputs: the model did not keep to the layout.",
        "Use a stronger model or another adapter, or give the field a default.",
    ),
    Code(
        "reply-not-json",
        "ReplyError",
        "The reply is no JSON object.",
        "Use a stronger model, or another adapter.",
    ),
    Code(
        "reply-not-xml",
        "ReplyError",
        "The reply has none of the tags that it should have.",
        "Use a stronger model, or another adapter.",
    ),
    Code(
        "reply-too-costly",
        "ReplyError",
        "The reply holds broken JSON that would take more steps to make whole than its length allows.",
        "Look at the reply, and ask again: no ordinary reply comes near the bound in docs/adapters.md.",
    ),
    Code(
        "reply-type",
        "ReplyError InputError",
        "Values that were given as outputs are not of their types, or a reply to be read is no text.",
        "Give what the signature says, and a reply as a `str`.",
    ),
    # --- LMError ---
    Code(
        "lm",
        "LMError",
        "The language model could not be asked, for a reason that has no class of its own.",
        "Read the message.",
    ),
    Code(
        "lm-auth",
        "LMAuthError",
        "The server refused the key, or the key may not use the model.",
        "Check the key, and what it is allowed to.",
    ),
    Code(
        "lm-bad-key",
        "LMAuthError",
        "The key holds a line break or another character that no key has.",
        "Set it again; a file's last line break is often the reason.",
    ),
    Code(
        "lm-no-key",
        "LMAuthError",
        "There is no key for a server that may need one.",
        "Set the variable that the hint names, or pass `api_key=`.",
    ),
    Code(
        "lm-request",
        "LMRequestError",
        "The server refused the request.",
        "Read the server's words in `server_message`; often the model does not know a setting.",
    ),
    Code(
        "lm-context-length",
        "LMRequestError",
        "The prompt is too long for the model.",
        "Shorten the inputs or the demos.",
    ),
    Code(
        "lm-billing",
        "LMRequestError",
        "The account has no credit, or its quota is used up.",
        "Look at the account's billing; waiting does not help.",
    ),
    Code(
        "lm-not-found",
        "LMRequestError",
        "The server knows no such model or address (404).",
        "Check the model's name and `api_base`, which mostly ends in `/v1`.",
    ),
    Code(
        "lm-request-too-large",
        "LMRequestError",
        "The server says that the request is too large (413).",
        "Send a shorter prompt or fewer demos.",
    ),
    Code(
        "no-answer",
        "LMRequestError",
        "The scripted answers of a test have none for the request.",
        "Add one.",
    ),
    Code(
        "lm-rate-limit",
        "LMRateLimitError",
        "The server asks to slow down.",
        "Wait `retry_after` seconds, or send fewer at once.",
    ),
    Code(
        "lm-server",
        "LMServerError",
        "The server failed.",
        "Try again; look at the server's log if it stays so.",
    ),
    Code(
        "lm-certificate",
        "LMConnectionError",
        "The server's certificate is not trusted.",
        "Install the authority that signed it, or correct the address.",
    ),
    Code(
        "lm-connection",
        "LMConnectionError",
        "The connection to the server was lost.",
        "Try again; look at the network between here and there if it stays so.",
    ),
    Code(
        "lm-cut",
        "LMConnectionError",
        "The server broke off before its answer was whole.",
        "Try again; look at the server's log, or at a proxy's limits, if it stays so.",
    ),
    Code(
        "lm-unknown-host",
        "LMConnectionError",
        "The name of the server does not resolve.",
        "Check the host in `api_base`.",
    ),
    Code(
        "lm-unreachable",
        "LMConnectionError",
        "No connection to the server can be made.",
        "Check that it runs, and host and port in `api_base`.",
    ),
    Code(
        "lm-timeout",
        "LMTimeoutError",
        "The server did not answer within the LM's time limit.",
        "Raise the LM's `timeout`, or ask for fewer tokens.",
    ),
    Code(
        "lm-connect-timeout",
        "LMTimeoutError",
        "The server did not accept a connection in time.",
        "Check that it runs and is not overloaded; raise `connect_timeout` if it is far away.",
    ),
    Code(
        "lm-response",
        "LMResponseError",
        "The server's answer is not a chat completion, for example a redirect, of which none is followed.",
        "Check that `api_base` is the address of an OpenAI-compatible API.",
    ),
    Code(
        "lm-few-choices",
        "LMResponseError",
        "The answer has fewer generations than were asked for: the server does not know `n`.",
        "Call it several times instead.",
    ),
    Code(
        "lm-no-choices",
        "LMResponseError",
        "The answer has no choices.",
        "Look at the server's log: it answered without a generation.",
    ),
    Code(
        "lm-no-content",
        "LMResponseError",
        "The answer has no text.",
        "Look at its `finish_reason`: a filter, or `max_tokens` used up.",
    ),
    Code(
        "lm-not-http",
        "LMResponseError",
        "What answers at the address does not speak HTTP.",
        "Check host, port and `http` or `https` in `api_base`.",
    ),
    Code(
        "lm-not-json",
        "LMResponseError",
        "The answer is no JSON object.",
        "Check that `api_base` is the address of an OpenAI-compatible API.",
    ),
    Code(
        "lm-refusal",
        "LMResponseError",
        "The model refused to answer.",
        "Change what it is asked.",
    ),
    Code(
        "lm-response-too-large",
        "LMResponseError",
        "The answer is larger than `max_response_bytes`.",
        "Raise it if such answers are meant, or set `max_tokens`.",
    ),
    Code(
        "lm-tool-calls",
        "LMResponseError",
        "The answer calls tools in a form that is not that of chat completions.",
        "Ask whoever runs the server; each call needs a `function` with a `name`.",
    ),
    # --- PoolError ---
    Code(
        "pool",
        "PoolError",
        "A pool could not do its part.",
        "Read the message.",
    ),
    Code(
        "pool-closed",
        "PoolClosedError",
        "The pool is not open: not yet, or no longer.",
        "Call it between `await pool.start()` and `await pool.aclose()`.",
    ),
    Code(
        "pool-forked",
        "PoolClosedError",
        "The pool belongs to another process, of which this one is a fork.",
        "Make a pool after the fork.",
    ),
    Code(
        "pool-other-loop",
        "PoolClosedError",
        "The pool was started on another event loop.",
        "Call it on that loop, or through a `Runtime` or a `SyncPool`.",
    ),
    Code(
        "pool-restarted",
        "PoolClosedError",
        "A pool was started a second time.",
        "Make a new pool.",
    ),
    Code(
        "pool-saturated",
        "PoolSaturated",
        "The queue is full; nothing of this call was done.",
        "Slow down, or raise `queue`, `workers` or `max_inflight`.",
    ),
    Code(
        "worker-start",
        "WorkerStartError",
        "A worker refused to start, for example because a module of `preload` cannot be imported.",
        "Read the message, and run `dspex doctor`.",
    ),
    Code(
        "bad-limit",
        "WorkerStartError",
        "The system refuses the limits that the pool sets for its workers.",
        "Correct `memory`, `limits.cpus` or `limits.nice`.",
    ),
    Code(
        "restart-budget",
        "WorkerStartError",
        "Workers died more often than `restart.max` allows, and none is left.",
        "Cure the first cause, which the message names; the pool tries again when the window has passed.",
    ),
    Code(
        "start-exit",
        "WorkerStartError",
        "A worker ended before it was ready.",
        "Read its last output in the message, and run `dspex doctor`.",
    ),
    Code(
        "start-failed",
        "WorkerStartError",
        "The interpreter of the workers cannot be started.",
        "Correct `python`, and run `dspex doctor`.",
    ),
    Code(
        "start-timeout",
        "WorkerStartError",
        "A worker was not ready within `timeouts.start`.",
        "Raise it if imports take that long, and run `dspex doctor`.",
    ),
    Code(
        "version-mismatch",
        "WorkerStartError",
        "The interpreter of the workers has another version of dspex or Python.",
        "Install the same dspex there.",
    ),
    Code(
        "forkserver-died",
        "WorkerStartError",
        "The process that workers are forked from has ended.",
        "Nothing: the pool starts another; read its last output if it happens again.",
    ),
    Code(
        "forkserver-hung",
        "WorkerStartError",
        "The process that workers are forked from did not fork one in time, and was ended.",
        "Nothing: the next start has a new one; look for what stops processes if it happens again.",
    ),
    Code(
        "forkserver-not-single-threaded",
        "WorkerStartError",
        "Importing a module left threads running, so workers cannot be forked from that process.",
        "Set `start='spawn'`, or keep the module from starting threads.",
    ),
    Code(
        "worker-died",
        "WorkerDiedError",
        "The worker died while it held the call, which may or may not have had its effect.",
        "Try again if the call may run twice; look at `signal` and `output` for the cause.",
    ),
    Code(
        "wire",
        "WireError",
        "What was sent between service and worker cannot be used.",
        "Report it.",
    ),
    Code(
        "bad-body",
        "WireError",
        "The content of a frame cannot be read.",
        "Look for code in the worker that writes to its descriptors; report it otherwise.",
    ),
    Code(
        "bad-frame",
        "WireError",
        "Bytes came that are not a frame, or a frame that has no place there.",
        "Look for code in the worker that writes to its descriptors; report it otherwise.",
    ),
    Code(
        "frame-too-large",
        "WireError",
        "The data to be sent is larger than a frame may be.",
        "Send less at once, or a path to where it is.",
    ),
    Code(
        "not-encodable",
        "WireError",
        "A value is not of a kind that can cross to a worker or back.",
        "Send plain values: str, numbers, bytes, list, tuple, dict, set, date and time types.",
    ),
    Code(
        "truncated-frame",
        "WireError",
        "The connection ended in the middle of a frame.",
        "Look at why the other end died.",
    ),
    Code(
        "unknown-operation",
        "WireError",
        "The worker has no such operation.",
        "Use one of those that the hint lists.",
    ),
    # --- the rest ---
    Code(
        "too-many-errors",
        "BatchError",
        "So many rows of a batch failed that it stopped; the first of their errors is the cause.",
        "Correct the cause, or allow more with `max_errors=`.",
    ),
    Code(
        "deadline-exceeded",
        "DeadlineExceeded",
        "The call's time ran out; `stage` says while waiting for what.",
        "Give it more time, or less to do.",
    ),
    Code(
        "remote",
        "RemoteError",
        "The program or function in the worker raised an error of its own.",
        "Read `type`, the message and `traceback`, and correct the program.",
    ),
)
"""All codes, in the order of the tree of classes."""

_BY_CODE: Final = {row.code: row for row in CODES}
