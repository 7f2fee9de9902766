from dataclasses import replace

from virtex.synthetic.scenes import Object, Scene


def mirrored(scene: Scene) -> Scene:
    """The scene with left and right exchanged; its clouds stay in place."""
    return replace(scene, objects=tuple(_mirrored(item) for item in scene.objects))


def _mirrored(item: Object) -> Object:
    x, y = item.center
    return replace(item, center=(1 - x, y), degrees=-item.degrees, grain=-item.grain)
