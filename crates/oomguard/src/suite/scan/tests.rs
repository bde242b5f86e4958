use oomguard_core::Bytes;

use super::*;

fn gpu(text: &str) -> Option<String> {
    scan(text).unwrap().gpu
}

#[test]
fn imports_are_told_apart_by_when_they_happen() {
    let said = scan(
        "\u{feff}import os, numpy as np\nfrom torch import nn\nfrom . import local\nfrom .x import y\nimport a.b\n\
         from typing import TYPE_CHECKING as T\nimport pytest as pt\nfrom z import *\n\
         if T:\n    import typed\nelse:\n    import untyped\n\
         try:\n    import maybe\nexcept ImportError:\n    pass\n\
         class A:\n    import inclass\n    def f(self, x=pt.importorskip('default')):\n        import late\n        import os\n\
         skipped = pt.importorskip(modname='skipped.deep')\n\
         async def g():\n    pt.importorskip('late2', reason='x')\n",
    )
    .unwrap();
    assert_eq!(
        said.imports.module,
        [
            "a.b",
            "default",
            "inclass",
            "maybe",
            "numpy",
            "os",
            "pytest",
            "skipped.deep",
            "torch",
            "torch.nn",
            "typing",
            "typing.TYPE_CHECKING",
            "untyped",
            "z"
        ]
    );
    assert_eq!(said.imports.function, ["late", "late2"]);
    assert_eq!(said.gpu, None, "torch alone is no reason");
}

#[test]
fn a_gpu_file_is_known_by_its_first_reason() {
    for (text, why) in [
        ("import cupy as cp", "line 1: imports cupy"),
        ("\nimport jax.numpy as jnp", "line 2: imports jax"),
        ("from numba import cuda", "line 1: imports numba.cuda"),
        ("import torch\ntorch.cuda.is_available()", "line 2: uses torch.cuda"),
        ("import torch as th\n\ndef f():\n    th.cuda.synchronize()", "line 4: uses torch.cuda"),
        ("from torch import cuda", "line 1: imports torch.cuda"),
        ("def f(m):\n    m.cuda()", "line 2: calls .cuda()"),
        ("x.to('cuda:1')", "line 1: names the device \"cuda:1\""),
        ("f(device='cuda')\nx.cuda()", "line 1: names the device \"cuda\""),
        ("f(f'cuda:{rank}')", "line 1: names the device \"cuda:\""),
        ("def f():\n    import vllm.engine", "line 2: imports vllm"),
        ("import pytest\npytest.importorskip('triton')", "line 2: imports triton"),
    ] {
        assert_eq!(gpu(text).as_deref(), Some(why), "{text}");
    }
    for none in [
        "import torch\ntorch.zeros(3)",
        "import numba",
        "import torch.nn.functional as F",
        "import jaxtyping",
        "'cudart is missing'",
        "'''uses cuda'''",
        "if TYPE_CHECKING:\n    import jax",
        "from .torch import cuda",
    ] {
        assert_eq!(gpu(none), None, "{none}");
    }
}

#[test]
fn the_largest_of_all_marks_counts() {
    let said = scan(
        "import pytest as pt\nfrom pytest import mark\n\
         pytestmark = [pt.mark.slow, mark.oomguard(memory='1GiB', vram=None)]\n\
         @mark.oomguard(memory='4GiB', serial=True)\nclass TestA:\n    pytestmark = mark.oomguard(vram=1073741824)\n\
         \x20   @mark.oomguard(memory=2_000, serial=False)\n    def test_b(self): pass\n\
         big = mark.oomguard(vram='512 MB')\n@mark.oomguard\ndef test_c(): pass\n",
    )
    .unwrap();
    assert_eq!(said.marks, Marks { memory: Some(Bytes::gib(4)), vram: Some(Bytes::gib(1)), serial: true });
    let other = scan("@other.mark.oomguard(memory=size())\ndef f(): pass\n").unwrap();
    assert_eq!(other.marks, Marks::default());
}

#[test]
fn a_mark_that_cannot_be_read_is_pointed_at() {
    for (arguments, why) in [
        ("memory=SIZE", "`memory`: only a literal"),
        ("memory=4 << 30", "`memory`: only a literal"),
        ("memory='4 bananas'", "`memory`: `bananas`"),
        ("vram=1.5", "`vram`: a size is"),
        ("'4GiB'", "no name (try"),
        ("ram='4GiB'", "`ram` is not one of `memory`, `vram`, `serial`"),
        ("serial=1", "`serial`: it must be"),
        ("**extra", "`**` cannot be read"),
    ] {
        let (line, error) =
            scan(&format!("import pytest\n\npytestmark = pytest.mark.oomguard({arguments})\n")).unwrap_err();
        assert!(line == 3 && error.contains(why), "{arguments}: {line}: {error}");
    }
}

#[test]
fn a_file_that_is_no_python_says_nothing() {
    for text in ["import cupy\ndef (:", "\0", "import numpy\n  x", "@pytest.mark.oomguard(1)\n"] {
        assert_eq!(scan(text).unwrap(), Said::default(), "{text:?}");
    }
}

/// In a thread with the small stack that threads have.
#[test]
fn nesting_beyond_all_reason_is_survived() {
    let many = 30_000;
    for text in [
        format!("x = {}1{}", "(".repeat(many), ")".repeat(many)),
        format!("x = {}1", "-".repeat(many)),
        format!("x = {}1", "1+".repeat(many)),
        format!("x = a{}", ".b".repeat(many)),
        format!("x = a{}", "()".repeat(many)),
        format!("x = {}{}", "[".repeat(many), "]".repeat(many)),
        (0..500).map(|depth| format!("{}if x:\n", " ".repeat(depth))).collect::<String>()
            + &" ".repeat(500)
            + "pass\n",
        "f'{".repeat(500),
        "lambda: ".repeat(many) + "1",
        "not ".repeat(many) + "1",
        "x if y else ".repeat(many) + "z",
    ] {
        std::thread::spawn(move || assert_eq!(scan(&text).unwrap(), Said::default())).join().unwrap();
    }
}

#[test]
fn files_keep_their_order_whatever_thread_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = (0..100).map(|index| dir.path().join(format!("t{index}.py"))).collect();
    for (index, path) in paths.iter().enumerate() {
        std::fs::write(path, format!("import m{index}\n")).unwrap();
    }
    let files = files(&paths, dir.path()).unwrap();
    for (index, file) in files.iter().enumerate() {
        assert_eq!(file.path, Path::new(&format!("t{index}.py")));
        assert_eq!(file.imports.module, [format!("m{index}")]);
        assert_eq!(file.size, format!("import m{index}\n").len() as u64);
    }
    std::fs::write(&paths[7], "\npytest.mark.oomguard(1)\n").unwrap();
    let error = super::files(&paths, dir.path()).unwrap_err();
    assert!(error.message.starts_with("t7.py:2: @pytest.mark.oomguard: ") && error.code == 4, "{error}");
}
