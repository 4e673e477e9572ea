"""Architectures and tokenizers of open_clip: one of each family, small, against the raw towers."""

import importlib
import json
import logging

import open_clip
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

import fixlip
from fixlip.encoders import players
from fixlip.encoders.captions import CaptionReader
from fixlip.encoders.loading import find_tokenizer
from fixlip.encoders.sides import ImageSide, TextSide
from fixlip.paths import root

MASKED = {  # name: patches, text positions
    "ViT-B-32": (49, 77),
    "ViT-L-14-CLIPA": (256, 32),  # mean of the patches; words of BERT, read at the last position
    "ViT-L-14-worldwide": (256, 77),  # read at the end token of mT5
    "ViT-H-14-worldwide": (256, 77),  # read at the end token of XLM-V
    "ViT-B-16-SigLIP": (196, 64),
    "ViT-SO400M-14-SigLIP": (256, 16),
    "ViT-B-32-SigLIP2-256": (64, 64),
    "EVA01-g-14": (256, 77),
    "EVA02-B-16": (196, 77),  # rotary positions, gated blocks
    "PE-Core-B-16": (196, 32),  # rotary positions, attention pooling
    "MobileCLIP-B": (196, 77),  # patches from three convolutions
    "MobileCLIP2-L-14": (256, 77),  # CLIP's tokenizer, but no causal mask: padding takes part
    "ViTamin-S": (196, 77),  # patches from overlapping convolutions
    "vit_medium_patch16_gap_256": (256, 77),
}
REFUSED = {
    "RN50": "a ResNet image tower",
    "convnext_base": "a ConvNeXt image tower",
    "swin_base_patch4_window7_224": "a SwinTransformer image tower",
    "MobileCLIP2-S0": "a FastVit image tower",
    "vit_relpos_medium_patch16_cls_224": "a VisionTransformerRelPos image tower",
    "nllb-clip-base-siglip": "a Hugging Face text encoder",
    "xlm-roberta-base-ViT-B-32": "a Hugging Face text encoder",
    "coca_ViT-B-32": "the class token of CoCa",
    "ViTamin-XL-384": "an image tower for 384 pixels, but prepares images of 256",
}


@pytest.fixture
def architectures(monkeypatch):
    """The benchmark, which compares an architecture with its raw towers."""
    monkeypatch.syspath_prepend(root() / "benchmarks")
    monkeypatch.setattr(logging.getLogger(), "level", logging.ERROR)  # of random weights
    return importlib.import_module("architectures")


@pytest.mark.slow
@pytest.mark.parametrize("name", MASKED)
def test_one_of_every_family_is_masked_as_defined(architectures, name):
    row = architectures.examine(name)
    assert row["result"] == "exact" and (row["patches"], row["positions"]) == MASKED[name]


@pytest.mark.parametrize("side", [ImageSide, TextSide])
def test_a_side_that_ignores_one_player_is_found_out(architectures, monkeypatch, side):
    """Negative control: of both comparisons."""
    features = side._features

    def keep_the_last(self, units):
        units = units.clone()
        units[:, -1] = True
        return features(self, units)

    monkeypatch.setattr(side, "_features", keep_the_last)
    assert architectures.examine("ViT-B-32")["result"] == "WRONG"


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_masked_is_refused_before_it_is_built(monkeypatch, name):
    def build(*_, **__):
        raise AssertionError("too late")

    monkeypatch.setattr(open_clip, "create_model", build)
    monkeypatch.setattr(open_clip, "get_tokenizer", build)
    with pytest.raises(ValueError, match=f"'{name}' has {REFUSED[name]}") as error:
        fixlip.load(name, pretrained="random")
    assert "\n" not in str(error.value)


def test_all_architectures_of_open_clip_were_measured(architectures):
    record = json.loads((root() / "benchmarks/results/architectures.json").read_text())
    if record["machine"]["open_clip"] != open_clip.__version__:
        pytest.skip(f"measured with open_clip {record['machine']['open_clip']}")
    rows = {row["architecture"]: row for row in record["architectures"]}
    assert set(rows) == set(open_clip.list_models())
    assert {row["result"].split(":")[0] for row in rows.values()} == {"exact", "refused"}
    assert record["rows"] == architectures.summary(record["architectures"])
    for name, expected in (MASKED | REFUSED).items():
        works = name in MASKED
        found = (rows[name]["patches"], rows[name]["positions"]) if works else rows[name]["result"]
        assert found == expected if works else found.startswith(f"refused: {expected}")


LETTERS = "abcdefghijklmnopqrstuvwxyz"


def bert():
    """Word pieces between [CLS] and [SEP]."""
    words = ["a", "red", "star", "##fish", "on", "the", "dog", "ball", *LETTERS, *"',!"]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(special + words))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer, dict(zip(("pad", "unk", "cls", "sep"), special, strict=True))


def unigram(special, frame):
    """Sentence pieces: words with a mark before them, and letters."""
    words = [(f"▁{word}", -2.0) for word in ("a", "red", "star", "on", "the", "dog", "ball")]
    pieces = [*words, ("fish", -3.0), ("▁", -4.0), *((letter, -9.0) for letter in LETTERS + "',!")]
    ids = {name: i for i, name in enumerate(special)}
    tokenizer = Tokenizer(
        models.Unigram([(name, 0.0) for name in special] + pieces, unk_id=ids["<unk>"])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    own = [(name, ids[name]) for name in frame.split() if name in ids]
    tokenizer.post_processor = TemplateProcessing(single=frame, special_tokens=own)
    names = {"<pad>": "pad", "</s>": "eos", "<unk>": "unk", "<s>": "bos"}
    return tokenizer, {names[name]: name for name in special}


def t5():
    return unigram(("<pad>", "</s>", "<unk>"), "$A </s>")


def siglip():
    tokenizer, names = t5()
    return tokenizer, names | {"pad": "</s>"}


def xlm():
    return unigram(("<s>", "<pad>", "</s>", "<unk>"), "<s> $A </s>")


KINDS = {  # of the tokenizers that lie on the Hub: build, class in their files, ids of the frame
    "ViT-B-16-SigLIP": (siglip, "T5Tokenizer", (), (1,), 1),
    "ViT-L-14-worldwide": (t5, "T5Tokenizer", (), (1,), 0),
    "ViT-H-14-worldwide": (xlm, "XLMRobertaTokenizer", (0,), (2,), 1),
    "ViT-L-14-CLIPA": (bert, "BertTokenizer", (2,), (0,), 0),  # the separator becomes 0
}


def write(folder, build, kind, **options):
    """Write the files of a tokenizer as a repository on the Hub has them."""
    tokenizer, names = build()
    for name in set(names.values()):
        tokenizer.add_special_tokens([AddedToken(name, special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {f"{key}_token": name for key, name in names.items()}
    config |= {"tokenizer_class": kind, "padding_side": "right", **options}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def read(name, folder, caption):
    """Read a caption as the architecture of this name would, and return its words as well."""
    config = open_clip.get_model_config(name)
    sizes = {"length": config["text_cfg"]["context_length"]}
    sizes["vocabulary"] = config["text_cfg"]["vocab_size"]
    caption = CaptionReader(find_tokenizer(name, config, folder), **sizes).read(caption)
    return caption, players.words(caption.pieces).names, players.tokens(caption.pieces).names


@pytest.mark.parametrize("name", KINDS)
def test_tokenizers_of_the_hub_by_their_own_classes(tmp_path, name):
    build, kind, start, end, pad = KINDS[name]
    folder = write(tmp_path, build, kind)
    caption, words, tokens = read(name, folder, "a red  starfish, the dog's ball!")
    after = caption.ids[caption.stop :]
    assert caption.ids[: caption.start] == start and caption.cut is None
    assert after == end + (pad,) * (len(after) - len(end))
    if name in ("ViT-B-16-SigLIP", "ViT-L-14-worldwide"):  # which canonicalise: no punctuation
        assert words == ("a", "red", "starfish", "the", "dogs", "ball")
    else:
        assert words == ("a", "red", "starfish", ",", "the", "dog", "'", "s", "ball", "!")
    assert "".join(tokens).replace("fish", "") == "".join(words).replace("fish", "")
    assert tokens[2:4] == ("star", "fish") and len(tokens) == caption.stop - caption.start


@pytest.mark.parametrize("name", KINDS)
def test_capitals_count_only_where_the_real_tokenizer_keeps_them(tmp_path, name):
    folder = write(tmp_path, *KINDS[name][:2])
    small, _, _ = read(name, folder, "the red star")
    if name == "ViT-H-14-worldwide":
        with pytest.warns(UserWarning, match="does not know 'RED' of the caption"):
            capital, _, _ = read(name, folder, "the RED star")
        assert capital.ids != small.ids
    else:
        assert read(name, folder, "The RED Star")[0].ids == small.ids


def test_sixteen_positions_cut_a_caption(tmp_path):
    folder = write(tmp_path, siglip, "T5Tokenizer")
    with pytest.warns(UserWarning, match="longer than the 16 positions .* end: 'star on the dog'"):
        caption, words, _ = read(
            "ViT-SO400M-14-SigLIP", folder, "a red ball " * 5 + "star on the dog"
        )
    assert words == ("a", "red", "ball") * 5 and caption.ids[-1] == 1


@pytest.fixture
def gemma(tokenizer_folder, tmp_path):
    """Write SigLIP 2's tokenizer as a class of transformers reads it."""

    def write(kind, **options):
        source = tokenizer_folder("siglip2", 64)
        (tmp_path / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
        names = {f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk")}
        config = {"tokenizer_class": kind, "add_bos_token": False, "add_eos_token": True}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(names | config | options))
        return tmp_path

    return write


@pytest.mark.parametrize("kind", ["GemmaTokenizer", "GemmaTokenizerFast", "Siglip2Tokenizer"])
def test_gemma_tokenizers(gemma, kind):
    folder = gemma(kind, padding_side="right")
    caption, words, tokens = read("ViT-B-16-SigLIP2", folder, "A red Starfish, the\n 🙂 dog's!")
    assert caption.start == 0 and caption.ids[caption.stop :] == (1,) + (0,) * (63 - caption.stop)
    assert words == ("a", "red", "starfish", "the", "🙂", "dogs") and "<F0>" in tokens


def test_padding_on_the_left_is_refused(gemma):
    """Gemma's own habit: the text tower would see every word at the wrong position."""
    with pytest.raises(ValueError, match=r'pads on the left.*set "padding_side": "right"'):
        read("ViT-B-16-SigLIP2", gemma("GemmaTokenizer"), "a red star")


def test_a_sentencepiece_model_alone_says_what_is_missing(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "SiglipTokenizer"}')
    (tmp_path / "spiece.model").write_bytes(b"")
    with pytest.raises(ValueError, match="holds no tokenizer that can be read: ") as error:
        read("ViT-B-16-SigLIP", tmp_path, "a red star")
    assert "\n" not in str(error.value)


def test_clips_own_tokenizer():
    caption, words, tokens = read("PE-Core-B-16", None, "A  Red starfishy, the dog's 🙂!")
    assert words == ("a", "red", "starfishy", ",", "the", "dog", "'s", "🙂", "!")
    assert len(caption.ids) == 32 and caption.start == 1 and tokens[2:4] == ("star", "fishy")
