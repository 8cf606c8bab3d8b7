setexpr x 6 * 7
echo flash-$x
