"""What the kernels of a compiled graph move, if all that can be one kernel is one."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from jstar.train.trace import is_free, kernel_flops


@dataclass(frozen=True)
class GraphCost:
    """FLOPs of its matrix products and attention; bytes read and written by the other kernels."""

    matrix: float
    attention: float
    moved: float

    @classmethod
    def of(cls, graph: GraphModule) -> "GraphCost":
        """Kernels are joined where one reads what the other writes and no product lies between.

        A kernel reads each value once that comes from outside, and writes each once that is read
        outside. Reductions along different axes count as one kernel: a lower bound.
        """
        work: dict[Node, tuple[float, float]] = {}
        for node in graph.graph.nodes:
            if node.op == "call_function":
                args, kwargs = map_arg(node.args, _value), map_arg(node.kwargs, _value)
                found = kernel_flops(node.target, args, kwargs, _value(node))
                if found is not None:
                    work[node] = found
        matrix, attention = (sum(w[k] for w in work.values()) for k in (0, 1))
        return cls(matrix, attention, _Kernels(graph, set(work)).moved())


class _Kernels:
    """Nodes grouped into kernels: those at one place among the products that read one another."""

    def __init__(self, graph: GraphModule, products: set[Node]) -> None:
        self.nodes, self.products = list(graph.graph.nodes), products
        self.place = self._places()
        self.parent: dict[Node, Node] = {}  # only of nodes that are part of a kernel
        for node in self.nodes:
            if node.op != "call_function" or node in products or _is_alias(node):
                continue
            self.parent[node] = node
            for base in map(_base, node.all_input_nodes):
                if base in self.parent and self.place[base] == self.place[node]:
                    self.parent[self.kernel(base)] = self.kernel(node)

    def _places(self) -> dict[Node, int]:
        """After how many products in a row a node is computed: as late as what reads it allows.

        What is cheap to compute is computed where it is used (the compiler inlines it there).
        """
        first: dict[Node, int] = {}
        for node in self.nodes:
            before = [first[s] for s in node.all_input_nodes]
            first[node] = max(before, default=0) + (node in self.products)
        place = dict(first)
        for node in reversed(self.nodes):
            users = [u for u in node.users if u.op != "output"]
            if users and node not in self.products:
                latest = min(place[u] - (u in self.products) for u in users)
                place[node] = max(first[node], latest)
        return place

    def kernel(self, node: Node) -> Node:
        """The node that names a node's kernel."""
        while self.parent[node] is not node:
            node = self.parent[node]
        return node

    def moved(self) -> float:
        """Bytes read and written by all kernels."""
        reads: dict[tuple[Node, Node], int] = {}
        written: dict[Node, int] = {}
        for node in self.nodes:
            inside = self.kernel(node) if node in self.parent else None
            if inside is None and _is_alias(node):
                continue
            for source in node.all_input_nodes:
                base = _base(source)
                own = self.kernel(base) if base in self.parent else None
                if inside is not None and own is not inside:
                    reads[inside, base] = max(reads.get((inside, base), 0), _bytes(source))
                if own is not None and own is not inside:
                    written[base] = _bytes(base)
        return float(sum(reads.values()) + sum(written.values()))


def _is_alias(node: Node) -> bool:
    """Whether a node only names (a part of) another's memory."""
    return node.op == "call_function" and ("getitem" in str(node.target) or is_free(node.target))


def _base(node: Node) -> Node:
    """The node whose memory a view shows."""
    while _is_alias(node) and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return node


def _value(node: Node) -> Any:
    return node.meta.get("val")


def _bytes(node: Node) -> int:
    value = _value(node)
    parts = value if isinstance(value, tuple | list) else [value]
    return sum(part.nbytes for part in parts if isinstance(part, Tensor))
