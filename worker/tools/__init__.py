"""The tools that models may call, behind one interface: functions, and those of MCP servers."""
