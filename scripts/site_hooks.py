"""MkDocs hooks: add the cards of the bundled models to the site.

Links between the pages and the cards are written as paths of the repository, so that they also work
where the files are read without the site.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PRETRAINED = Path("fer_pipeline", "pretrained")
SUFFIXES = {".csv", ".json", ".md", ".png", ".yaml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the card, pictures and tables of each bundled model as models/NAME.

    The card is not added as README.md, because MkDocs would treat it as the index page of its
    section in the navigation.
    """
    root = Path(config.config_file_path).parent
    for path in sorted((root / PRETRAINED).glob("*/*")):
        if path.suffix in SUFFIXES:
            name = path.name.replace("README.md", "card.md")
            uri = f"models/{path.parent.name}/{name}"
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Convert links between pages and cards from paths of the repository to those of the site."""
    if page.file.src_uri.startswith("models/"):
        return markdown.replace("](../../../docs/", "](../../").replace("/README.md)", "/card.md)")
    link = re.compile(r"\]\(\.\./((?:\.\./)*)fer_pipeline/pretrained/([^)]*)\)")
    return link.sub(
        lambda match: f"]({match[1]}models/{match[2].replace('README.md', 'card.md')})", markdown
    )
