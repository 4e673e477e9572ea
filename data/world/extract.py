"""Make the sheets of pictograms from the packages that hold them.

    python data/world/extract.py --packages DIR

DIR holds the packages of `SETS` as `npm pack NAME@VERSION` saves them; those that are missing are
fetched with npm. The program needs Pillow and resvg-py; what it writes is committed, so that
nobody else does. `fixlip.demo.concepts` says which drawings show a concept.
"""

import argparse
import hashlib
import io
import json
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fixlip.demo.concepts import CONCEPTS

HERE = Path(__file__).parent
SHIPPED = HERE.parents[1] / "fixlip" / "demo" / "pictograms"
CELL, COLUMNS = 64, 16  # pixels of a drawing; drawings in a row of a sheet


@dataclass(frozen=True)
class Package:
    """A set of pictograms in the npm registry.

    `path` names a drawing's file inside the package, with {code} for its code points; a set of
    SVG bodies in one `icons.json` has none. Drawings have Unicode's names there, or those that the
    file `renamed` lists.
    """

    style: str
    name: str
    version: str
    path: str | None = None
    folder: Path = SHIPPED
    renamed: str | None = None

    @property
    def file(self) -> str:
        """The name that `npm pack` gives the package's file."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


SETS = (
    Package("noto", "emoji-datasource-google", "16.0.0", "img/google/64/{code}.png"),
    Package("twemoji", "emoji-datasource-twitter", "16.0.0", "img/twitter/64/{code}.png"),
    Package("fluent-3d", "@lobehub/fluent-emoji-3d", "1.1.0", "assets/{code}.webp"),
    Package("fluent-flat", "@iconify-json/fluent-emoji-flat", "1.2.6"),
    Package("noto-v1", "@iconify-json/noto-v1", "1.2.5"),
    Package("firefox", "@iconify-json/fxemoji", "1.2.2", renamed="firefox.txt"),
    Package("emojitwo", "@iconify-json/emojione", "1.2.3"),
    Package("openmoji", "openmoji", "17.0.0", "color/svg/{code}.svg", HERE.parent / "openmoji"),
)


def without_variation(code: str) -> str:
    """Code points as all sets can be compared by: lower case, no fe0f."""
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


def slug(annotation: str, joined: object) -> str:
    """The name of an icon: lower case, no apostrophes, words joined by hyphens or by nothing."""
    return re.sub("[ -]", "" if joined else "-", annotation.lower().replace("’", ""))


def render(svg: str) -> Image.Image:
    """Draw an SVG on CELL x CELL pixels."""
    from resvg_py import svg_to_bytes

    png = svg_to_bytes(svg_string=svg, width=4 * CELL, height=4 * CELL, skip_system_fonts=True)
    return fitted(Image.open(io.BytesIO(png)))


def fitted(image: Image.Image) -> Image.Image:
    """Crop the transparent margin away and fit the longer side into CELL pixels, in the middle."""
    image = image.convert("RGBA")
    image = image.crop(image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    scale = CELL / max(image.size)
    size = tuple(max(1, round(scale * side)) for side in image.size)
    if size != image.size:  # premultiplied: no dark rim from transparent pixels
        image = image.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(image, ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell


def pictures(
    package: Package, archive: Path, drawings: list[str], codes: dict[str, str]
) -> list[Image.Image | None]:
    """The package's picture of each drawing, None where it has none."""
    with tarfile.open(archive) as tar:
        members = {m.name.partition("/")[2]: m for m in tar.getmembers() if m.isfile()}

        def read(name: str) -> bytes:
            return tar.extractfile(members[name]).read()

        if package.path is None:
            icons = json.loads(read("icons.json"))
            names = read_names(package.renamed) if package.renamed else {}
            return [icon(icons, names.get(d, slug(d, package.renamed))) for d in drawings]
        pattern = re.compile(re.escape(package.path).replace(r"\{code\}", "([0-9A-Fa-f-]+)"))
        by_code = {without_variation(m[1]): n for n in members if (m := pattern.fullmatch(n))}
        found = []
        for drawing in drawings:
            name = by_code.get(codes[drawing])
            if name is None:
                found.append(None)
            elif name.endswith(".svg"):
                found.append(render(read(name).decode()))
            else:
                found.append(fitted(Image.open(io.BytesIO(read(name)))))
        return found


def read_names(file: str) -> dict[str, str]:
    """A set's own names of its drawings, by Unicode's names."""
    lines = (HERE / file).read_text(encoding="utf-8").splitlines()
    return dict(line.split(" = ") for line in lines if " = " in line)


def icon(icons: dict, name: str) -> Image.Image | None:
    """An icon of a set in Iconify's format, None if it has none of this name."""
    name = icons.get("aliases", {}).get(name, {}).get("parent", name)
    found = icons["icons"].get(name)
    if found is None:
        return None
    width, height = (found.get(k, icons.get(k, 16)) for k in ("width", "height"))
    box = f"{found.get('left', 0)} {found.get('top', 0)} {width} {height}"
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return render(f'<svg {spaces} viewBox="{box}">{found["body"]}</svg>')


def sheet(cells: list[Image.Image | None]) -> Image.Image:
    """All drawings of a set in rows of COLUMNS; an empty cell where it has none."""
    rows = -(-len(cells) // COLUMNS)
    image = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    for k, cell in enumerate(cells):
        if cell is not None:
            image.paste(cell, (k % COLUMNS * CELL, k // COLUMNS * CELL))
    return image


def fetch(package: Package, folder: Path) -> Path:
    """The package's file in a folder, fetched with npm if it is not there."""
    archive = folder / package.file
    if not archive.is_file():
        command = ["npm", "pack", f"{package.name}@{package.version}"]
        subprocess.run(command, cwd=folder, check=True)
    return archive


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", type=Path, required=True, help="folder with the packages")
    folder = parser.parse_args().packages
    archives = {package.style: fetch(package, folder) for package in SETS}
    with tarfile.open(archives["openmoji"]) as tar:
        entries = json.load(tar.extractfile("package/data/openmoji.json"))
    plain = [e for e in entries if not e["skintone"] and not e["group"].startswith("extras")]
    codes = {e["annotation"]: without_variation(e["hexcode"]) for e in plain}
    drawings = [drawing for concept in CONCEPTS.values() for drawing in concept.drawings]
    sources = []
    for package in SETS:
        cells = pictures(package, archives[package.style], drawings, codes)
        place = package.folder / package.style if package.folder == SHIPPED else package.folder
        place.mkdir(parents=True, exist_ok=True)
        sheet(cells).save(place / "sheet.webp", lossless=True, quality=100, method=6)
        digest = hashlib.sha256(archives[package.style].read_bytes()).hexdigest()
        source = {"style": package.style, "package": package.name, "version": package.version}
        source |= {"sha256": digest, "drawings": sum(cell is not None for cell in cells)}
        sources.append(json.dumps(source))
        print(sources[-1], flush=True)
    (HERE / "sources.json").write_text("[\n" + ",\n".join(sources) + "\n]\n")


if __name__ == "__main__":
    main()
