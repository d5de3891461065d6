"""A worker plugin that ends its interpreter instead of being loaded."""

import sys

sys.exit(3)
