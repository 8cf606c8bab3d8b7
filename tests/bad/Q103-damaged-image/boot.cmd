# This script is loaded as an image, and is none that bootm takes.
bootm 78a00000
echo never reached-${ver}
