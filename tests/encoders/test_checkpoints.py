"""Checkpoints of every kind: the same weights and logits as the clean file, or one sentence."""

import argparse
import gzip
import json
import shutil
import warnings
import zipfile
from collections import OrderedDict

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from safetensors.torch import save_file
from tiny import tiny_config

from fixlip.encoders import load

CAPTION = "a red star"
SETS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "module", "net", "weights")
PREFIXES = (
    *("", "module.", "_orig_mod.", "model.", "clip.", "backbone.", "model.clip.", "module.model."),
    *("module._orig_mod.", "_orig_mod.module.", "clip._orig_mod.", "module.model._orig_mod.clip."),
)


def larger(config):
    """The tiny configuration with a finer grid and a longer caption."""
    config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"] = 64, 77
    return config


@pytest.fixture
def clip(monkeypatch, tiny_model, tokenizer_folder, tmp_path, noise):
    """A tiny model's weights, and what its checkpoint must give, whatever it is wrapped in."""
    configs = {"tiny": tiny_config("clip"), "tiny-large": larger(tiny_config("clip"))}
    for name, config in configs.items():
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)

    class Clip:
        model = tiny_model("clip")
        state = {name: weights.clone() for name, weights in model.state_dict().items()}
        path = tmp_path / "weights.pt"

        def open(self, content=None, **options):
            """Load a checkpoint with this content, or the file at `path` as it is."""
            if content is not None:
                torch.save(content, self.path)
            options = {"device": "cpu", "tokenizer": tokenizer_folder("clip", 12), **options}
            return load("tiny", pretrained=self.path, **options)

        def check(self, encoder):
            """Compare all weights and the logit, bit by bit."""
            for name, weights in encoder.model.state_dict().items():
                assert torch.equal(weights, self.state[name]), name
            assert encoder.logit(noise, CAPTION) == self.logit

        def refused(self, *parts, content=None, error=ValueError):
            """The message, one line, with all these parts."""
            with pytest.raises(error) as raised:
                self.open(content)
            message = str(raised.value)
            assert "\n" not in message
            assert raised.value.__context__ is None or raised.value.__suppress_context__
            for part in parts:
                assert part in message, message
            return message

    made = Clip()
    made.logit = made.open(made.state).logit(noise, CAPTION)
    return made


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("container", [None, *SETS])
def test_every_container_and_prefix_gives_the_same_logit(clip, container, prefix):
    state = OrderedDict((prefix + name, weights) for name, weights in clip.state.items())
    moments = {i: {"exp_avg": torch.ones(2), "step": torch.tensor(3.0)} for i in range(2)}
    training = {
        "epoch": 3,
        "name": "run 1",
        "optimizer": {"state": moments, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
        "scaler": {"scale": torch.tensor(2.0)},
    }
    clip.check(clip.open(state if container is None else {**training, container: state}))


def test_other_ways_of_wrapping(clip):
    clip.check(clip.open({"checkpoint": {"model": clip.state}}))
    inner = {n.replace("visual.", "visual._orig_mod."): w for n, w in clip.state.items()}
    clip.check(clip.open(inner))  # one tower compiled, or in DataParallel
    split = {"visual": {}}
    for name, weights in clip.state.items():
        if name.startswith("visual."):
            split["visual"][name.removeprefix("visual.")] = weights
        else:
            split[name] = weights
    clip.check(clip.open(split))
    clip.check(clip.open((split, {"epoch": 3})))
    circle = {"state_dict": clip.state}
    circle["trainer"] = circle
    clip.check(clip.open(circle))
    clip.check(clip.open({"n_averaged": torch.tensor(3), **_prefixed(clip.state, "module.")}))
    clip.check(clip.open({name: torch.nn.Parameter(w) for name, w in clip.state.items()}))


def test_names_of_the_custom_text_model_are_those_of_clip(clip, tiny_model):
    """`open_clip.CustomTextCLIP` puts "text." before, and older checkpoints for it do not."""
    text = ("positional_embedding", "token_embedding", "transformer", "ln_final", "text_projection")
    clip.check(
        clip.open({("text." if n.startswith(text) else "") + n: w for n, w in clip.state.items()})
    )


def test_siglip_in_a_training_checkpoint_in_a_folder(model_folder, noise):
    folder = model_folder("siglip")
    clean = load(f"local-dir:{folder}", device="cpu")
    state = _prefixed(clean.model.state_dict(), "module._orig_mod.")
    old = {
        name.replace("text.", "", 1) if ".text." in name else name: w for name, w in state.items()
    }
    (folder / "open_clip_model.safetensors").unlink()
    for content in (state, old):
        torch.save({"epoch": 1, "state_dict": content}, folder / "open_clip_pytorch_model.bin")
        encoder = load(folder, device="cpu")
        assert encoder.info["fingerprint"] == clean.info["fingerprint"]
        assert encoder.logit(noise, CAPTION) == clean.logit(noise, CAPTION)


def test_safetensors_whatever_they_are_called(clip):
    for prefix in ("", "module.", "model._orig_mod."):
        save_file(_prefixed(clip.state, prefix), clip.path)  # called .pt
        clip.check(clip.open())
    clip.path = clip.path.with_suffix(".ckpt")
    clip.check(clip.open({"state_dict": clip.state}))


def test_files_from_before_zip_archives(clip):
    torch.save({"model": clip.state}, clip.path, _use_new_zipfile_serialization=False)
    clip.check(clip.open())
    state = {"state_dict": clip.state, "args": argparse.Namespace(lr=0.1)}
    torch.save(state, clip.path, _use_new_zipfile_serialization=False)
    clip.refused("holds Python objects beside the weights", "save its state_dict()")


def test_openai_archives_are_read_without_running_them(clip):
    """As OpenAI's: TorchScript in half precision, with sizes and masks beside the weights."""
    model = clip.model.half()
    sizes = {"input_resolution": 32, "context_length": 12, "vocab_size": 600}
    for name, size in sizes.items():
        if hasattr(model, name):
            delattr(model, name)
        model.register_buffer(name, torch.tensor(size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images, ids = torch.zeros(1, 3, 32, 32).half(), torch.zeros(1, 12, dtype=torch.long)
        given = {"encode_image": images, "encode_text": ids}
        torch.jit.trace_module(model, given, check_trace=False).save(clip.path)
    with zipfile.ZipFile(clip.path) as archive:
        assert any(name.endswith("constants.pkl") for name in archive.namelist())
    encoder = clip.open()
    for name, weights in encoder.model.state_dict().items():
        assert torch.equal(weights, clip.state[name].half().float()), name


def test_models_that_were_pickled_whole(clip):
    clip.check(clip.open(clip.model))
    clip.check(clip.open({"epoch": 1, "model": torch.nn.DataParallel(clip.model)}))


class Harm:
    """Code inside a checkpoint."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


def test_code_and_objects_beside_weights_are_not_run(clip):
    args = argparse.Namespace(lr=0.1, path=clip.path, shape={1, 2})
    for beside in (args, np.float64(0.3), np.arange(3), Harm(), [Harm()], {"x": Harm()}):
        clip.check(clip.open({"state_dict": clip.state, "args": beside}))
    clip.refused("1 missing ('logit_scale')", content=clip.state | {"logit_scale": Harm()})


def test_bfloat16_beside_objects(clip):
    state = {name: weights.bfloat16() for name, weights in clip.state.items()}
    encoder = clip.open({"model": state, "args": argparse.Namespace()})
    assert torch.equal(encoder.model.visual.proj, state["visual.proj"].float())


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_types_of_weights(clip):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        encoder = clip.open({name: weights.to(dtype) for name, weights in clip.state.items()})
        expected = clip.state["visual.proj"].to(dtype).float()
        assert torch.equal(encoder.model.visual.proj, expected)
        assert encoder.model.visual.proj.dtype == encoder.model.attn_mask.dtype == torch.float32
    fine = {name: weights.double() + 1e-12 for name, weights in clip.state.items()}
    assert torch.equal(clip.open(fine, dtype="float64").model.visual.proj, fine["visual.proj"])
    quantised = clip.state | {"visual.proj": (100 * clip.state["visual.proj"]).to(torch.int8)}
    message = clip.refused("'visual.proj' is int8 and must be float32", content=quantised)
    assert "they fit" not in message
    for change, kind in (
        (lambda w: w.to_sparse(), "sparse float32"),
        (lambda w: w.to("meta"), "float32 without its numbers"),
        (lambda w: w.to(torch.complex64), "complex64"),
    ):
        other = clip.state | {"visual.proj": change(clip.state["visual.proj"])}
        clip.refused(f"'visual.proj' is {kind} and must be float32", content=other)


def test_tensors_that_share_memory(clip):
    joint = torch.cat([clip.state["text_projection"], clip.state["visual.proj"]])
    shared = clip.state | {"text_projection": joint[:32], "visual.proj": joint[32:]}
    clip.check(clip.open({"model": shared}))
    transposed = clip.state | {"visual.proj": clip.state["visual.proj"].T.contiguous().T}
    clip.check(clip.open({"model": transposed, "args": argparse.Namespace()}))


def test_another_size_is_refused_with_both_sizes_and_the_fitting_architecture(clip, tiny_model):
    """open_clip would resize the position embeddings without a word, and move the logits."""
    state = tiny_model("clip", larger(tiny_config("clip"))).state_dict()
    message = clip.refused(
        "'visual.positional_embedding' is 65 x 32 and must be 17 x 32", content=state
    )
    assert "'positional_embedding' is 77 x 32 and must be 12 x 32" in message
    assert (
        message.endswith("; they fit 'tiny-large': load that")
        and "do not load into 'tiny'" in message
    )
    for length in (248, 32):
        config = tiny_config("clip")
        config["text_cfg"]["context_length"] = length
        state = tiny_model("clip", config).state_dict()
        clip.refused(f"is {length} x 32 and must be 12 x 32", content={"state_dict": state})


def test_another_size_in_a_folder(model_folder, tiny_model):
    folder = model_folder("clip")
    state = tiny_model("clip", larger(tiny_config("clip"))).state_dict()
    save_file(state, folder / "open_clip_model.safetensors")
    with pytest.raises(ValueError, match=r"open_clip_model.* is 65 x 32 and must be 17 x 32"):
        load(folder, device="cpu")


@pytest.mark.slow
def test_known_architectures_are_found_by_their_weights(clip):
    for name in ("ViT-B-16", "ViT-B-16-SigLIP"):
        config = open_clip.get_model_config(name)
        custom = config.pop("custom_text", False)
        with torch.device("meta"):
            model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
        # one number stands for each weight, because only shapes are compared
        state = {n: torch.zeros(()).expand(w.shape) for n, w in model.state_dict().items()}
        assert f"they fit {name!r}" in clip.refused(content=state)


def test_missing_and_unexpected_names_are_listed(clip):
    state = dict(clip.state)
    for name in list(state)[:5]:
        del state[name]
    names = ", ".join(map(repr, list(clip.state)[:3]))
    state["head.weight"] = torch.zeros(2)
    clip.refused(f"5 missing ({names}, 2 more); 1 unexpected ('head.weight')", content=state)
    message = clip.refused(
        "unexpected ('0.weight', '0.bias')",
        content={"0.weight": torch.zeros(3), "0.bias": torch.zeros(3)},
    )
    assert f"{len(clip.state)} missing" in message


def test_a_bias_trained_with_siglips_loss_is_part_of_the_logit(clip, noise):
    """In a plain CLIP, whose architecture has none: dropped, it would only be missed."""
    for bias in (torch.tensor(-10.0), torch.tensor([-10.0])):
        encoder = clip.open({"state_dict": clip.state | {"logit_bias": bias}})
        assert encoder.logit_bias == -10.0
        assert encoder.logit(noise, CAPTION) == clip.logit - 10.0
    clip.check(clip.open(clip.state | {"logit_scale": clip.state["logit_scale"][None]}))


def test_a_bias_that_is_missing_is_zero_with_a_warning(model_folder, tiny_model):
    folder = model_folder("siglip")
    state = tiny_model("siglip").state_dict()
    del state["logit_bias"]
    save_file(state, folder / "open_clip_model.safetensors")
    with pytest.warns(UserWarning, match="hold no logit_bias, .* it is taken as 0"):
        assert load(folder, device="cpu").logit_bias == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["logit_scale", "visual.proj"])
def test_weights_that_are_not_finite_are_named(clip, name, value):
    clip.state[name].view(-1)[-1] = value
    count = clip.state[name].numel()
    clip.refused(f"1 of {count} values of {name!r} in 'tiny' are NaN", content=clip.state)


def test_a_scale_in_place_of_its_logarithm(clip):
    with pytest.warns(UserWarning, match=r"exp\(100\) = 3e\+43 is no plausible scale"):
        clip.open(clip.state | {"logit_scale": torch.tensor(100.0)})


def test_of_two_sets_the_plain_one_is_taken_with_a_warning(clip):
    other = {name: weights + 1 for name, weights in clip.state.items()}
    match = "hold 2 sets that fit: 'state_dict' is taken, not 'state_dict_ema'; to use another"
    for content in (
        {"state_dict_ema": other, "state_dict": clip.state},
        {"state_dict": clip.state, "state_dict_ema": other},
    ):
        with pytest.warns(UserWarning, match=match):
            clip.check(clip.open(content))
    both = _prefixed(clip.state, "student.") | _prefixed(other, "teacher.")
    with pytest.warns(UserWarning, match="'state_dict.student' is taken, not 'state_dict.teacher'"):
        clip.check(clip.open({"state_dict": both}))
    twice = {**clip.state, **_prefixed(other, "module.")}
    clip.refused("hold tensors of one name, with and without", content=twice)


def test_weights_beside_the_models_are_left_out_with_a_warning(clip):
    state = _prefixed(clip.state, "model.") | {"head.weight": torch.ones(2)}
    with pytest.warns(UserWarning, match="left out: 'state_dict/head.weight'"):
        clip.check(clip.open({"state_dict": state}))


def test_formats_that_are_not_open_clips(clip):
    lora = "base_model.model.visual.transformer.resblocks.0.mlp.c_fc.lora_A.weight"
    clip.refused("they are changes (LoRA); merge", content={lora: torch.ones(2, 2)})
    tuned = clip.state | {"visual.transformer.resblocks.0.mlp.c_fc.lora_A": torch.ones(2, 2)}
    clip.refused("they are changes (LoRA); merge", content=tuned)
    for prefix in ("", "module."):
        state = {"logit_scale": torch.tensor(4.6), "visual_projection.weight": torch.ones(2, 2)}
        state["text_model.embeddings.token_embedding.weight"] = torch.ones(2, 2)
        state["vision_model.embeddings.class_embedding"] = torch.ones(2)
        clip.refused("they are in the format of transformers", content=_prefixed(state, prefix))


def test_files_that_are_no_checkpoints_are_called_what_they_are(clip):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 605157884\n"
    torch.save(clip.state, clip.path)
    whole = clip.path.read_bytes()
    save_file(clip.state, clip.path)
    safe = clip.path.read_bytes()
    torch.save(clip.state, clip.path, _use_new_zipfile_serialization=False)
    old = clip.path.read_bytes()
    for content, what in (
        (b"", "it is empty"),
        (pointer, "it is a pointer of Git LFS; fetch the file with 'git lfs pull'"),
        (b"\n<!DOCTYPE html><html><title>Sign in</title></html>", "it is a web page"),
        (b'{"weight_map": {}}', "it is JSON"),
        (gzip.compress(whole), "it is packed with gzip"),
        (b"no weights at all", "it is neither of safetensors nor of torch"),
        (b"PK\x03\x04 half a file", "it is cut off"),
        (whole[: len(whole) // 2], "it is cut off"),
        (safe[: len(safe) // 2], "it is cut off"),
        (safe[:20], "it is cut off"),
        (old[: len(old) // 2], "it is cut off"),
        (old[:20], "it is cut off"),
    ):
        clip.path.write_bytes(content)
        clip.refused(f"weights.pt' cannot be read: {what}")
    with zipfile.ZipFile(clip.path, "w") as archive:
        archive.writestr("photo.jpg", b"x")
    clip.refused("it is a zip archive of something else ('photo.jpg'")
    for nothing in ({}, [1, 2], {"epoch": 3}, None):
        torch.save(nothing, clip.path)
        clip.refused("holds no tensors")
    clip.refused("do not load into 'tiny'", content=torch.ones(3))


def test_places_that_are_no_checkpoint_files(clip, tmp_path):
    clip.path = tmp_path
    clip.refused("is a folder; give the checkpoint file in it, or load 'local-dir:")
    clip.path = "https://example.org/weights.pt"
    clip.refused("'https://example.org/weights.pt' is not fetched; download it")


def test_folders_with_several_checkpoints(model_folder):
    folder = model_folder("clip")
    file = folder / "open_clip_model.safetensors"
    shutil.copy(file, folder / "another.safetensors")
    clean = load(folder, device="cpu").info["fingerprint"]
    file.rename(folder / "epoch_9.safetensors")
    with pytest.raises(ValueError, match=r"several checkpoints \('another.safetensors', 'epoch_9"):
        load(folder, device="cpu")
    (folder / "another.safetensors").unlink()
    (folder / "._epoch_9.safetensors").touch()  # as some systems leave beside a file
    assert load(folder, device="cpu").info["fingerprint"] == clean


def split(state, folder):
    """Weights in two files with their index: its path."""
    folder.mkdir(exist_ok=True)
    half, listed = len(state) // 2, {}
    for k, part in enumerate((list(state)[:half], list(state)[half:]), start=1):
        name = f"model-0000{k}-of-00002.safetensors"
        save_file({key: state[key] for key in part}, folder / name)
        listed |= dict.fromkeys(part, name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": listed}))
    return index


def test_checkpoints_in_several_files_are_read_whole(clip, tmp_path, model_folder):
    index = split(clip.state, tmp_path / "parts")
    for path in (index, index.with_name("model-00002-of-00002.safetensors")):
        clip.path = path
        clip.check(clip.open())
    folder = model_folder("clip")
    clean = load(folder, device="cpu").info["fingerprint"]
    state = safetensors.torch.load_file(folder / "open_clip_model.safetensors")
    (folder / "open_clip_model.safetensors").unlink()
    inside = split(state, folder)
    assert load(folder, device="cpu").info["fingerprint"] == clean
    inside.unlink()
    with pytest.raises(ValueError, match=r"holds parts .* without the index .*index\.json"):
        load(folder, device="cpu")


def test_indexes_that_list_what_is_not_there(clip, tmp_path):
    clip.path = split(clip.state, tmp_path / "parts")
    text = clip.path.read_text()
    gone = clip.path.with_name("model-00002-of-00002.safetensors")
    gone.rename(gone.with_name("elsewhere"))
    clip.refused("of the 2 files", "1 are not beside it", repr(gone.name))
    gone.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    clip.refused(repr(str(gone)), "a pointer of Git LFS")
    for content in ("{}", '{"weight_map": []}', "[1]"):
        clip.path.write_text(content)
        clip.refused("an index without a 'weight_map'")
    clip.path.write_text(text[: len(text) // 2])
    clip.refused("it is cut off or changed")
    # no path leads out of the folder
    clip.path.write_text(json.dumps({"weight_map": {"x": f"../{tmp_path.name}/weights.pt"}}))
    clip.refused("1 are not beside it")


def _prefixed(state, prefix):
    return {prefix + name: weights for name, weights in state.items()}
