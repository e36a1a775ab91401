"""Networks of the papers that timm does not have, registered with it."""
