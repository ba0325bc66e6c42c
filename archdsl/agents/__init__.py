"""archdsl for programs that write specs: tools of the Model Context Protocol."""
