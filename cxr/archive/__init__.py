"""Results where radiologists look: DICOM reports and heatmaps, in a folder or on a DICOMweb server.

Needs highdicom, and dicomweb-client for a server. Neither ships with a registered model, and both are loaded only by a
step that was asked for DICOM results.
"""
