//! `pytest.mark.oomguard(memory="4GiB", vram="2GiB", serial=True)`, wherever it stands: above a test or a class, in
//! `pytestmark`, in `pytest.param(marks=...)`, under a name of its own.
//!
//! The arguments are those of `oomguard.pytest`. Only literals can be read without running the file.

use oomguard_core::Bytes;
use ruff_python_ast::{Expr, ExprCall, Number};
use ruff_text_size::Ranged;

use super::super::Marks;

/// What one mark says, or where it is wrong and how.
pub(super) fn read(call: &ExprCall) -> Result<Marks, (u32, String)> {
    let wrong =
        |at: &dyn Ranged, why: &str| Err((at.start().to_u32(), format!("@pytest.mark.oomguard: {why}")));
    if let Some(first) = call.arguments.args.first() {
        return wrong(first, "an argument has no name (try `memory=\"4GiB\"`)");
    }
    let mut marks = Marks::default();
    for keyword in &call.arguments.keywords {
        let name = keyword.arg.as_ref().map(|name| name.as_str());
        let read = match name {
            Some("memory") => size(&keyword.value).map(|size| marks.memory = size),
            Some("vram") => size(&keyword.value).map(|size| marks.vram = size),
            Some("serial") => match &keyword.value {
                Expr::BooleanLiteral(flag) => {
                    marks.serial = flag.value;
                    Ok(())
                }
                _ => Err("it must be the word True or False".to_owned()),
            },
            Some(other) => {
                return wrong(keyword, &format!("`{other}` is not one of `memory`, `vram`, `serial`"));
            }
            None => return wrong(keyword, "`**` cannot be read without running the file"),
        };
        if let Err(why) = read {
            return wrong(&keyword.value, &format!("`{}`: {why}", name.unwrap_or_default()));
        }
    }
    Ok(marks)
}

/// For each argument the larger one.
pub(super) fn larger(one: Marks, other: Marks) -> Marks {
    Marks {
        memory: one.memory.max(other.memory),
        vram: one.vram.max(other.vram),
        serial: one.serial || other.serial,
    }
}

/// A size as it is typed, or whole bytes; `None` in Python is as good as nothing.
fn size(value: &Expr) -> Result<Option<Bytes>, String> {
    let text = match value {
        Expr::NoneLiteral(_) => return Ok(None),
        Expr::StringLiteral(text) => text.value.to_str().to_owned(),
        Expr::NumberLiteral(number) => match &number.value {
            Number::Int(bytes) => bytes.to_string(),
            _ => return Err("a size is a text such as \"4GiB\", or whole bytes".to_owned()),
        },
        _ => return Err("only a literal such as \"4GiB\" can be read without running the file".to_owned()),
    };
    text.parse().map(Some).map_err(|error: oomguard_core::units::SizeError| error.to_string())
}
