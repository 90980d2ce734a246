"Every value comes from settings.ini; pyproject.toml is written by nbdev_export"
from configparser import ConfigParser
from pathlib import Path

import setuptools

here = Path(__file__).parent
ini = ConfigParser(delimiters=["="])
ini.read(here/"settings.ini", encoding="utf-8")
c = ini["DEFAULT"]
lib, readme = c["lib_name"], here/"README.md"
status = ["Planning", "Pre-Alpha", "Alpha", "Beta", "Production/Stable", "Mature", "Inactive"][int(c["status"])-1]
licenses = {"apache2": "Apache-2.0"}

def split(value):
    "Requirements of a setting: several on a line, or one with its environment marker after a semicolon"
    return [r for line in value.splitlines() for r in ([line.strip()] if ";" in line else line.split())]

setuptools.setup(
    name=lib, version=c["version"], description=c["description"], keywords=c["keywords"],
    author=c["author"], author_email=c["author_email"], url=c["git_url"], license=licenses[c["license"]],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else c["description"],
    long_description_content_type="text/markdown",
    classifiers=[f"Development Status :: {c['status']} - {status}", f"Intended Audience :: {c['audience']}",
                 f"Natural Language :: {c['language']}", "Programming Language :: Python :: 3"],
    packages=setuptools.find_packages(include=[lib, f"{lib}.*"]), python_requires=f">={c['min_python']}",
    install_requires=split(c["requirements"]),
    extras_require={name[:-len("_requirements")]: split(value) for name, value in c.items() if name.endswith("_requirements")},
    entry_points={"console_scripts": c["console_scripts"].split(), "nbdev": [f"{lib}={lib}._modidx:d"]},
    include_package_data=True, zip_safe=False)
