"""Tests of fixlip.encoders.loading: names, weights and tokenizers found, or refused in one line."""

import json
import pickle
import urllib.error
import warnings

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tiny import tiny_config

import fixlip
from fixlip.encoders import device, hub, load, loading, names

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
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

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
    whole = {"embed_dim": 3, "vision_cfg": {}, "text_cfg": {}}
    for described, lack in (
        ({"embed_dim": 3}, "'model_cfg' with settings"),
        ({"model_cfg": 3}, "'model_cfg' with settings"),
        ([], "'model_cfg' with settings"),
        ({"model_cfg": whole | {"vision_cfg": None}}, "'model_cfg.vision_cfg' with settings"),
        ({"model_cfg": {"embed_dim": 3, "vision_cfg": {}}}, "'model_cfg.text_cfg' with settings"),
        ({"model_cfg": {"vision_cfg": {}, "text_cfg": {}}}, "'model_cfg.embed_dim'"),
    ):
        (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
        with pytest.raises(ValueError, match=f"is no open_clip configuration: it has no {lack}"):
            load(f"local-dir:{tmp_path}")
    folder = model_folder("clip")
    (folder / "open_clip_model.safetensors").unlink()  # open_clip itself would use random weights
    with pytest.raises(ValueError, match=r"holds no weights: expected a file such as") as error:
        load(f"local-dir:{folder}")
    assert one_line(error)
    path = folder / "open_clip_config.json"
    path.write_text(path.read_text().replace('"patch_size"', '"patch_sise"'))
    save_file({"logit_scale": torch.zeros(())}, folder / "open_clip_model.safetensors")
    with pytest.raises(ValueError, match=r"makes no model: .*'patch_sise'") as error:
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
    for name in ("demo-clp", "DEMO-CLIP"):
        with pytest.raises(ValueError, match="did you mean 'demo-clip'"):
            load(name)
    with pytest.raises(ValueError, match="'vit-b/32'; did you mean 'ViT-B-32'"):
        load("vit-b/32", pretrained="openai")
    with pytest.raises(ValueError, match=r"'qqqq'; expected one of 'demo-clip'"):
        load("qqqq")


def test_folders_by_their_path(model_folder, monkeypatch):
    folder = model_folder("clip")
    label, fingerprint = f"local-dir:{folder.name}", load(folder).info["fingerprint"]
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.chdir(folder)
    up = f"../{folder.name}"
    home = f"~/{folder.name}"
    for name in (folder, str(folder), f"{folder}/", ".", up, home, f"local-dir:{home}"):
        encoder = load(name, device="cpu")
        assert (encoder.name, encoder.info["fingerprint"]) == (label, fingerprint)
        assert load(f"local-dir:{name}".replace("dir:local-dir:", "dir:")).name == label


def test_paths_that_are_no_model(tmp_path, model_folder):
    file = model_folder("clip") / "open_clip_model.safetensors"
    with pytest.raises(ValueError, match=r"is a file; give the name of its architecture, and the"):
        load(file)
    for name in ("/no/such/folder", "~/no-such-folder", "./folder", "some/where/else"):
        with pytest.raises(FileNotFoundError, match=rf"there is no folder at '{name}'; check"):
            load(name)
    with pytest.raises(FileNotFoundError, match=r"nowhere.*json; the folder does not exist"):
        load(f"local-dir:{tmp_path}/nowhere")
    with pytest.raises(FileNotFoundError, match=r"give a folder that open_clip saved"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["CLIPModel"]}')
    with pytest.raises(FileNotFoundError, match=r"model is in the format of transformers: give"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'https://h.co/a/b', and addresses are not fet"):
        load("https://h.co/a/b")
    with pytest.raises(ValueError, match="names no folder"):
        load("local-dir:")  # the folder that one is in
    with pytest.raises(TypeError, match="expected the name of a model, or the path of a folder"):
        load(3)


def test_repositories_of_the_hub_are_named_as_such():
    for name in ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "openai/clip-vit-base-patch32"):
        with pytest.raises(ValueError) as error:
            load(name)
        assert str(error.value) == (
            f"no model is called '{name}'; did you mean the repository 'hf-hub:{name}' of the "
            "Hugging Face Hub?"
        )
    for name in ("hf-hub:", "hf-hub: ", "hf-hub:/", "hf-hub:a/b/c"):
        with pytest.raises(ValueError, match=f"{name!r} names no repository"):
            load(name)
    with pytest.raises(ValueError, match="SigLIP2', or the repository 'hf-hub:timm/ViT-B"):
        load("timm/ViT-B-16-SigLIP")


def test_unknown_and_missing_weights_list_the_tags():
    with pytest.raises(ValueError, match=r"no weights called 'opnai'; expected .*'openai', 'laion"):
        load("ViT-B-32", pretrained="opnai")
    with pytest.raises(ValueError, match=r"which weights of 'ViT-B-32'.*'openai'.*or 'random'"):
        load("ViT-B/32")
    with pytest.raises(ValueError, match=r"which weights of 'ViT-B-16-SigLIP'.*'webli'"):
        load("ViT-B-16-SigLIP")


def test_checkpoints_that_are_not_there_or_of_another_model(tiny, tiny_model, tmp_path):
    _, folder = tiny
    with pytest.raises(FileNotFoundError, match=r"no checkpoint file at .*missing\.pt"):
        load("tiny", pretrained=tmp_path / "missing.pt", tokenizer=folder)
    siglip = tmp_path / "siglip.safetensors"
    save_file(tiny_model("siglip").state_dict(), siglip)
    with pytest.raises(ValueError, match=r"do not load into 'tiny': .* missing .* unexpected") as e:
        load("tiny", pretrained=siglip, tokenizer=folder)
    assert one_line(e)


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
    with pytest.raises(ValueError, match="the device 'meta' cannot be used here") as error:
        load("tiny", pretrained="random", device="meta")
    assert one_line(error)
    encoder = load("tiny", pretrained="random", dtype="bfloat16", device="cpu", tokenizer=tiny[1])
    assert encoder.info["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    "capability,built,used",
    [
        ((9, 0), "sm_80 sm_90", "cuda"),
        ((8, 9), "sm_80 sm_90", "cuda"),  # machine code of the same generation
        ((9, 0), "sm_80 compute_80", "cuda"),  # PTX is compiled for later GPUs
        ((9, 0), "sm_90a", "cuda"),
        ((12, 1), "sm_90 sm_120", "cuda"),
        ((12, 0), "sm_80 sm_90 compute_90a", "cpu"),  # of one GPU only
        ((12, 0), "sm_80 sm_90", "cpu"),
        ((6, 1), "sm_75 sm_80 compute_80", "cpu"),
        ((8, 0), "sm_86", "cpu"),
        ((8, 0), "", "cuda"),  # nothing is said
    ],
)
def test_gpus_that_torch_is_not_built_for_are_left_alone(monkeypatch, capability, built, used):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", built.split)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU X")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        assert device.choose_device(None).type == used
    messages = [str(warning.message) for warning in given]
    assert len(messages) == (used == "cpu")
    if messages:
        major, minor = capability
        assert f"GPU X, has compute capability {major}.{minor}" in messages[0]
        assert all(architecture in messages[0] for architecture in built.split())
    monkeypatch.setattr(torch.version, "cuda", None)  # AMD
    assert device.choose_device(None).type == "cuda"


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
    assert len(unreachable) == 1 and constants.HF_HUB_OFFLINE is False


def test_fetched_weights_of_another_size_are_no_missing_connection(monkeypatch, model_folder):
    folder = model_folder("clip")
    state = load_file(folder / "open_clip_model.safetensors")
    state["visual.positional_embedding"] = torch.zeros(65, 32)
    save_file(state, folder / "open_clip_model.safetensors")

    def fetch(repository, filename="open_clip_model.safetensors"):
        assert repository == "somebody/something"
        return str(folder / filename)

    monkeypatch.setattr(hub, "reachable", lambda address: True)
    for module in (names, loading):
        monkeypatch.setattr(module, "download_pretrained_from_hf", fetch)
    read = open_clip.tokenizer.HFTokenizer(str(folder), context_length=12)
    with pytest.raises(ValueError, match=r"into 'hf-hub:some.* is 65 x 32 and") as error:
        load("hf-hub:somebody/something", tokenizer=read, device="cpu")
    assert one_line(error)
    del state["visual.positional_embedding"]
    save_file(
        state | {"visual.positional_embedding": torch.zeros(17, 32)}, fetch("somebody/something")
    )
    assert load("hf-hub:somebody/something", tokenizer=read).name == "hf-hub:somebody/something"


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
    monkeypatch.setattr(hub, "reachable", lambda address: True)
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


@pytest.mark.parametrize("model", ["demo-clip", "demo-siglip"])
def test_encoders_and_sides_can_be_pickled(model):
    encoder = fixlip.load(model)
    other = pickle.loads(pickle.dumps(encoder))
    for make in (lambda e: e.text("a star"), lambda e: e.image(np.zeros((48, 48, 3), np.uint8))):
        side, again = make(encoder), pickle.loads(pickle.dumps(make(other)))
        masks = torch.rand(4, side.n) < 0.5
        assert torch.equal(side.embed(masks), again.embed(masks))
