"""thingsvision's extractor, asked over a pipe: it needs libraries too old for earmark.

Run by the interpreter of an environment that holds thingsvision 2.7.3. The first line of
the input is a JSON object that says what to encode; each line after it is a file to save
the features in, or empty, and is answered when they are extracted by a line with the bytes
at the peak. What thingsvision prints goes to the standard error.
"""

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def extractor_of(asked: dict[str, Any]) -> tuple[Any, Any]:
    """The model with the weights that earmark encodes with, and its preprocessing."""
    from torchvision import transforms

    bicubic = transforms.InterpolationMode.BICUBIC
    shown = transforms.Compose([
        transforms.Resize(asked["pixels"], interpolation=bicubic),
        transforms.CenterCrop(asked["pixels"]),
        transforms.ToTensor(),
        transforms.Normalize((0.5,) * 3, (0.5,) * 3),
    ])
    extractor = import_module("thingsvision").get_extractor(
        model_name=asked["model"], source="timm", device="cpu", pretrained=False
    )
    weights = import_module("safetensors.torch").load_file(asked["weights"])
    extractor.model.load_state_dict(weights, strict=False)
    extractor.model.eval()
    return extractor, shown


def extracted(asked: dict[str, Any], extractor: Any, shown: Any) -> Any:
    """The features of all images, from the files."""
    data = import_module("thingsvision.utils.data")
    dataset = data.ImageDataset(
        root=asked["images"], out_path=asked["out"], backend="pt", transforms=shown
    )
    batches = data.DataLoader(dataset, batch_size=asked["batch"], backend="pt")
    return extractor.extract_features(
        batches=batches, module_name=asked["module"], flatten_acts=True
    )


def held(field: str) -> int:
    """Bytes that Linux says this process holds; 0 on another system."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    return 1024 * int(status.read_text().split(f"{field}:")[1].split()[0])


def main() -> None:
    """Answer until the input ends."""
    import numpy as np

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.readline())
    known = extractor_of(asked)
    for line in sys.stdin:
        clear = Path("/proc/self/clear_refs")
        if clear.exists():
            clear.write_text("5")
        before = held("VmRSS")
        features = extracted(asked, *known)
        if line.strip():
            np.save(line.strip(), features)
        answers.write(f"{held('VmHWM') - before}\n")
        answers.flush()


if __name__ == "__main__":
    main()
