"""LoRaWAN through ChirpStack v4 (docs/lorawan.md)."""
