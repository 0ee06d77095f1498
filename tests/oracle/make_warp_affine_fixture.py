"""Makes warp_affine_opencv.npz: images warped by OpenCV. Run: python tests/oracle/make_warp_affine_fixture.py

Needs opencv-python-headless. OpenCV's own coordinates may be rounded to 1/32 of a pixel, so the images are smooth.
"""

from pathlib import Path

import cv2
import numpy as np
import scipy.ndimage


def main() -> None:
    """Warp three smooth images of bytes by three matrices, and write both with the results."""
    rng = np.random.default_rng(0)
    noise = scipy.ndimage.gaussian_filter(rng.normal(size=(3, 32, 40, 3)), (0, 6, 6, 0))
    images = np.round(255 * (noise - noise.min()) / np.ptp(noise)).astype("uint8")
    matrices, seen = [], []
    for image, degrees, zoom in zip(images, (15, -20, 33), (1, 1.2, 0.8), strict=True):
        matrix = np.eye(3, dtype="float32")
        matrix[:2] = cv2.getRotationMatrix2D((19.5, 15.5), degrees, zoom)
        matrices.append(matrix)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = image.shape[1::-1]
        seen.append(cv2.warpAffine(image.astype("float32"), matrix[:2], size, None, flags, cv2.BORDER_REPLICATE))
    arrays = {"images": images, "matrices": np.stack(matrices), "seen": np.stack(seen).astype("float32")}
    np.savez_compressed(Path(__file__).with_name("warp_affine_opencv.npz"), **arrays)


if __name__ == "__main__":
    main()
