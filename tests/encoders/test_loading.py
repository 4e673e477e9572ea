"""Tests of fixlip.encoders.loading: names, weights and tokenizers found, or refused in one line."""

import json
import urllib.error
import warnings

import open_clip
import pytest
import torch
from huggingface_hub import constants as hub
from safetensors.torch import save_file
from tiny import tiny_config

from fixlip.encoders import load, loading

CAPTION = "a red star"


@pytest.fixture
def tiny(monkeypatch, tiny_model, tokenizer_folder):
    """Make open_clip know the architecture "tiny", and return it with weights of its own."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", tiny_config("clip"))
    return tiny_model("clip"), tokenizer_folder("clip", 12)


@pytest.fixture
def unreachable(monkeypatch):
    """Count the tries to reach a network that is not there."""
    tries = []
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)

    def refuse(request, timeout):
        tries.append(request.full_url)
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return tries


def one_line(error):
    bare = error.value.__context__ is None or error.value.__suppress_context__
    return bare and "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin"])
@pytest.mark.parametrize("nested", [False, True])
def test_checkpoint_files(tiny, tmp_path, noise, suffix, nested):
    model, folder = tiny
    path = tmp_path / f"weights{suffix}"
    state = model.state_dict()
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": state} if nested else state, path)
    encoder = load("tiny", pretrained=path, tokenizer=folder, device="cpu")
    assert encoder.pretrained == path.name and encoder.name == "tiny"
    for name, weights in encoder.model.state_dict().items():
        assert torch.equal(weights, state[name])


def test_local_folders(model_folder, noise):
    for kind in ("clip", "siglip"):
        folder = model_folder(kind)
        encoder = load(f"local-dir:{folder}", device="cpu")
        assert encoder.name == f"local-dir:{folder.name}" and encoder.pretrained is None
        assert encoder.text(CAPTION).names == ("a", "red", "star")
        side = encoder.image(noise)
        assert side.picture.shape[0] == side.picture.shape[1]
        assert encoder.model.visual.preprocess_cfg["resize_mode"] == "squash"
        whole = [
            s.embed(torch.ones(1, s.n, dtype=torch.bool))[0] for s in (side, encoder.text(CAPTION))
        ]
        expected = encoder.logit_scale * float(whole[0] @ whole[1]) + encoder.logit_bias
        assert encoder.logit(noise, CAPTION) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="brings its own weights; leave pretrained='openai' out"):
        load(f"local-dir:{folder}", pretrained="openai")


def test_broken_local_folders(model_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*open_clip_config\.json") as error:
        load(f"local-dir:{tmp_path}")
    assert one_line(error)
    (tmp_path / "open_clip_config.json").write_text("{")
    with pytest.raises(ValueError, match="is no open_clip configuration") as error:
        load(f"local-dir:{tmp_path}")
    assert one_line(error)
    (tmp_path / "open_clip_config.json").write_text('{"embed_dim": 3}')
    with pytest.raises(ValueError, match=r"is no open_clip configuration: KeyError\('model_cfg'\)"):
        load(f"local-dir:{tmp_path}")
    folder = model_folder("clip")
    (folder / "open_clip_model.safetensors").unlink()  # open_clip itself would use random weights
    with pytest.raises(ValueError, match=r"do not load into .*could not be loaded") as error:
        load(f"local-dir:{folder}")
    assert one_line(error)
    folder = model_folder("clip")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer: .*give tokenizer= the path") as error:
        load(f"local-dir:{folder}")
    assert one_line(error)


def test_random_weights_are_the_same_each_time_and_leave_the_global_generator_alone(tiny):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = load("tiny", pretrained="random", tokenizer=tiny[1], device="cpu")
    assert torch.equal(torch.rand(3), expected)
    again = load("tiny", pretrained="random", tokenizer=tiny[1], device="cpu")
    assert first.info == again.info and first.pretrained == "random"


def test_unknown_names_suggest_others():
    with pytest.raises(ValueError, match="no model is called 'ViT-B32'; did you mean 'ViT-B-32'"):
        load("ViT-B32", pretrained="openai")
    with pytest.raises(ValueError, match="did you mean 'demo-clip'"):
        load("demo-clp")
    with pytest.raises(ValueError, match=r"'qqqq'; expected one of 'demo-clip'"):
        load("qqqq")


def test_unknown_and_missing_weights_list_the_tags():
    with pytest.raises(ValueError, match=r"no weights called 'opnai'; expected .*'openai', 'laion"):
        load("ViT-B-32", pretrained="opnai")
    with pytest.raises(ValueError, match=r"which weights of 'ViT-B-32'.*'openai'.*or 'random'"):
        load("ViT-B/32")
    with pytest.raises(ValueError, match=r"which weights of 'ViT-B-16-SigLIP'.*'webli'"):
        load("ViT-B-16-SigLIP")


def test_bad_checkpoints(tiny, tiny_model, tmp_path):
    _, folder = tiny
    with pytest.raises(FileNotFoundError, match=r"no checkpoint file at .*missing\.pt"):
        load("tiny", pretrained=tmp_path / "missing.pt", tokenizer=folder)
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        (tmp_path / "weights.txt").touch()
        load("tiny", pretrained=tmp_path / "weights.txt", tokenizer=folder)
    for suffix in (".safetensors", ".pt", ".bin"):
        path = tmp_path / f"broken{suffix}"
        for content in (b"", b"no weights at all", b"PK\x03\x04 half a file"):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=rf"broken\{suffix}' cannot be read") as error:
                load("tiny", pretrained=path, tokenizer=folder)
            assert one_line(error)
    siglip = tmp_path / "siglip.safetensors"
    save_file(tiny_model("siglip").state_dict(), siglip)
    small = tmp_path / "small.pt"
    state = tiny_model("clip").state_dict()
    torch.save(
        {name: weights[:1] if weights.ndim else weights for name, weights in state.items()}, small
    )
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({}, tmp_path / "nothing.pt")
    for path in (siglip, small, tmp_path / "list.pt", tmp_path / "nothing.pt"):
        with pytest.raises(ValueError, match="do not load into 'tiny'") as error:
            load("tiny", pretrained=path, tokenizer=folder)
        assert one_line(error)


class Harm:
    """Code inside a checkpoint."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


def test_code_in_checkpoints_is_never_run(tiny, tmp_path):
    torch.save({"state_dict": {"logit_scale": Harm()}}, tmp_path / "harm.pt")
    with pytest.raises(ValueError, match="cannot be read: Weights only load failed"):
        load("tiny", pretrained=tmp_path / "harm.pt", tokenizer=tiny[1])


@pytest.mark.parametrize(
    "name,message",
    [
        ("RN50", "ResNet image tower"),
        ("coca_ViT-B-32", "class token of CoCa"),
        ("roberta-ViT-B-32", "Hugging Face text encoder"),
    ],
)
def test_families_that_cannot_be_masked(name, message):
    with pytest.raises(ValueError, match=f"'{name}' has .*{message}"):
        load(name, pretrained="random")


@pytest.mark.parametrize("tower", ["vision_cfg", "text_cfg"])
def test_towers_without_pooling(model_folder, tower):
    folder = model_folder("clip")
    path = folder / "open_clip_config.json"
    described = json.loads(path.read_text())
    described["model_cfg"][tower]["pool_type"] = "none"
    path.write_text(json.dumps(described))
    with pytest.raises(ValueError, match="has a tower without pooling"):
        load(f"local-dir:{folder}")


def test_image_towers_for_another_size(model_folder):
    folder = model_folder("siglip")
    path = folder / "open_clip_config.json"
    path.write_text(path.read_text().replace('"image_size": 48', '"image_size": 64'))
    with pytest.raises(ValueError, match="for 48 pixels, but prepares images of 64"):
        load(f"local-dir:{folder}")


def test_bad_devices_and_types(tiny):
    with pytest.raises(ValueError, match="the device 'gpu' cannot be used here") as error:
        load("tiny", pretrained="random", device="gpu")
    assert one_line(error)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="the device 'cuda' cannot be used here"):
            load("tiny", pretrained="random", device="cuda")
    with pytest.raises(ValueError, match=r'dtype must be "float32", .*, got \'int8\''):
        load("tiny", pretrained="random", dtype="int8")
    encoder = load("tiny", pretrained="random", dtype="bfloat16", device="cpu", tokenizer=tiny[1])
    assert encoder.info["dtype"] == "bfloat16"


def test_given_tokenizers(tiny, tmp_path):
    own = load("tiny", pretrained="random", tokenizer=tiny[1], device="cpu").tokenizer
    assert own.context_length == 12
    assert load("tiny", pretrained="random", tokenizer=own, device="cpu").tokenizer is own
    with pytest.raises(FileNotFoundError, match="there is no tokenizer folder at"):
        load("tiny", pretrained="random", tokenizer=tmp_path / "none")
    with pytest.raises(ValueError, match="holds no tokenizer that can be read") as error:
        load("tiny", pretrained="random", tokenizer=tmp_path)
    assert one_line(error)


def test_siglip_cleaning_is_kept_for_given_tokenizers(tokenizer_folder):
    config = open_clip.get_model_config("ViT-B-16-SigLIP")
    tokenizer = loading.find_tokenizer("ViT-B-16-SigLIP", config, tokenizer_folder("siglip1", 64))
    assert tokenizer.context_length == 64
    assert torch.equal(tokenizer("A red STAR!"), tokenizer("a red star"))


@pytest.mark.parametrize(
    "name,options",
    [
        ("ViT-B-32", {"pretrained": "openai"}),  # its tokenizer comes with open_clip
        ("ViT-B-16-SigLIP", {"pretrained": "webli"}),
        ("hf-hub:somebody/something", {}),
    ],
)
def test_without_network_one_line_at_once(unreachable, monkeypatch, name, options):
    with pytest.raises(ConnectionError, match="the Hugging Face Hub cannot be reached; ") as error:
        load(name, **options)
    assert one_line(error) and " path" in str(error.value)
    assert len(unreachable) == 1 and hub.HF_HUB_OFFLINE is False


def test_fetched_weights_of_another_architecture_are_no_missing_connection(monkeypatch):
    monkeypatch.setattr(loading, "_reachable", lambda address: True)
    monkeypatch.setattr(open_clip, "create_model", _foreign_weights)
    with pytest.raises(ValueError, match="weights are those of another architecture") as error:
        loading._model("hf-hub:somebody/something", None)
    assert one_line(error)


def _foreign_weights(*args, **options):
    raise RuntimeError("Error(s) in loading state_dict: size mismatch for visual.proj")


def test_openai_users_without_network_are_sent_to_quick_gelu(unreachable):
    with pytest.raises(
        ConnectionError, match="load 'ViT-B-32-quickgelu' with pretrained= the path"
    ):
        load("ViT-B-32", pretrained="openai")


def test_quick_gelu_follows_the_weights_not_the_name():
    for name in ("ViT-B-32", "ViT-B-32-quickgelu", "ViT-B-16", "ViT-L-14"):
        assert loading.preparation_of(name, "openai").quick_gelu is True
    assert loading.preparation_of("ViT-B-32", "laion2b_s34b_b79k").quick_gelu is False
    assert loading.preparation_of("ViT-B-16-SigLIP", "webli").quick_gelu is False
    assert loading.preparation_of("ViT-B-32", "random").quick_gelu is None
    with pytest.warns(UserWarning, match=r"does not say its activation.*'ViT-B-32-quickgelu'"):
        assert loading.preparation_of("ViT-B-32", "/some/file.pt").quick_gelu is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loading.preparation_of("ViT-B-32-quickgelu", "/some/file.pt")
        loading.preparation_of("ViT-B-16-SigLIP", "/some/file.pt")


def test_a_tag_builds_quick_gelu(monkeypatch, tmp_path, tiny):
    """The whole way from a tag to the activation, with a tiny file in place of the download."""
    model, folder = tiny
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    entry = {"hf_hub": "x/", "mean": (0.1,) * 3, "std": (0.2,) * 3, "interpolation": "bicubic"}
    tags = {
        "quick": {**entry, "resize_mode": "squash", "quick_gelu": True},
        "plain": {**entry, "resize_mode": "shortest"},
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", tags)
    monkeypatch.setattr(loading, "download_pretrained", lambda tag: str(tmp_path / "w.safetensors"))
    monkeypatch.setattr(loading, "_reachable", lambda address: True)
    quick = load("tiny", pretrained="quick", tokenizer=folder, device="cpu")
    plain = load("tiny", pretrained="plain", tokenizer=folder, device="cpu")
    kinds = [type(e.model.transformer.resblocks[0].mlp.gelu).__name__ for e in (quick, plain)]
    assert kinds == ["QuickGELU", "GELU"] and quick.pretrained == "quick"
    assert quick.model.visual.preprocess_cfg["resize_mode"] == "squash"
    assert tuple(plain.model.visual.preprocess_cfg["mean"]) == (0.1,) * 3
    with pytest.warns(UserWarning, match="prepare images in different ways; those of 'quick'"):
        load("tiny", pretrained=tmp_path / "w.safetensors", tokenizer=folder, device="cpu")


def test_images_of_siglip_are_prepared_its_way_from_any_weights():
    for name in ("ViT-B-16-SigLIP", "ViT-L-16-SigLIP2-256"):
        for weights in ("webli", "random", "/some/file.safetensors"):
            preprocess = loading.preparation_of(name, weights).preprocess
            assert preprocess["mean"] == preprocess["std"] == (0.5, 0.5, 0.5)
            assert preprocess["resize_mode"] == "squash"
    clip = loading.preparation_of("ViT-B-32", "random").preprocess
    assert clip["mean"][0] == pytest.approx(0.48145466)
    assert json.dumps(loading.preparation_of("MobileCLIP-B", "random").preprocess)
