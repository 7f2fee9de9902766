"""Fine-tune an exported backbone on an eighth of the labelled images, with torchvision alone.

python finetune.py LABELLED EXPORT             # LABELLED has train/CLASS/ and val/CLASS/
python finetune.py LABELLED EXPORT --random    # the same network with random weights
"""

import json
import sys
from pathlib import Path

import safetensors.torch
import torch
import torchvision
from torch.utils.data import DataLoader, Subset
from torchvision.transforms import v2

root, export, *options = map(Path, sys.argv[1:])
kept = json.loads((export / "virtex.json").read_text())
torch.manual_seed(0)
normalize = v2.Normalize(kept["mean"], kept["std"])
end = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), normalize]
crop = v2.RandomResizedCrop(kept["image_size"], scale=(0.5, 1.0))
augment = v2.Compose([crop, v2.RandomHorizontalFlip(), *end])
plain = v2.Compose([v2.Resize(kept["resize"]), v2.CenterCrop(kept["image_size"]), *end])
images = torchvision.datasets.ImageFolder(root / "train", augment)
few = Subset(images, range(0, len(images), 8))
test = torchvision.datasets.ImageFolder(root / "val", plain)
model = getattr(torchvision.models, kept["network"])()
model.fc = torch.nn.Identity()
if not options:
    model.load_state_dict(safetensors.torch.load_file(export / "model.safetensors"))
model.fc = torch.nn.Linear(kept["feature_size"], len(images.classes))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.05)
batches = DataLoader(few, 64, shuffle=True, drop_last=True)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-4, total_steps=10 * len(batches))
for _ in range(10):
    for pixels, labels in batches:
        loss = torch.nn.functional.cross_entropy(model(pixels), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
model.eval()
with torch.inference_mode():
    found = [(model(pixels).argmax(1) == labels).float() for pixels, labels in DataLoader(test, 64)]
print(f"{100 * torch.cat(found).mean():.1f} % of {len(test)} images are right")
