//! What shows that a test file uses a GPU.
//!
//! On the side of caution: a file that only asks whether there is one counts too. `import torch` alone does not.

use ruff_python_ast::{Expr, ExprCall};
use ruff_text_size::Ranged;

/// Packages that take hold of a GPU when they are used, or when they are imported.
const PACKAGES: &[&str] = &[
    "apex",
    "bitsandbytes",
    "cudf",
    "cugraph",
    "cuml",
    "cupy",
    "cupyx",
    "deepspeed",
    "flash_attn",
    "flax",
    "jax",
    "jaxlib",
    "numba.cuda",
    "paddle",
    "pycuda",
    "rmm",
    "sglang",
    "tensorflow",
    "tensorrt",
    "torch.cuda",
    "torch.backends.cuda",
    "torch.backends.cudnn",
    "transformer_engine",
    "triton",
    "vllm",
    "xformers",
];

/// `imports cupy`, for an import of a module of one of them.
pub(super) fn import(module: &str) -> Option<String> {
    package(module).map(|package| format!("imports {package}"))
}

/// `uses torch.cuda`, for a dotted name.
pub(super) fn name(name: &str) -> Option<String> {
    package(name).map(|package| format!("uses {package}"))
}

/// `"cuda"`, `"cuda:1"`: a device's name, wherever it stands.
pub(super) fn text(text: &str) -> Option<String> {
    let number = text.strip_prefix("cuda")?;
    // `cuda:` alone is the beginning of an f-string.
    let device = number.is_empty()
        || number.strip_prefix(':').is_some_and(|number| number.bytes().all(|digit| digit.is_ascii_digit()));
    device.then(|| format!("names the device \"{text}\""))
}

/// `x.cuda()`, and where the call is.
pub(super) fn call(call: &ExprCall) -> Option<(u32, String)> {
    let Expr::Attribute(method) = call.func.as_ref() else { return None };
    (method.attr.as_str() == "cuda").then(|| (call.start().to_u32(), "calls .cuda()".to_owned()))
}

fn package(name: &str) -> Option<&'static str> {
    let within = |package: &&&str| {
        name.strip_prefix(**package).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    PACKAGES.iter().find(within).copied()
}
