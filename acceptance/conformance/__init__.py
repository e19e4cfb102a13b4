"""What a well-behaved answer is: pure checkers of bodies, streams and refusals, each a function
from what came over the wire to a list of problems, empty when there is none."""
