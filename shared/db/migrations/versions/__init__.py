"""One file a step, the first in 0001; a step that was released is never changed."""
